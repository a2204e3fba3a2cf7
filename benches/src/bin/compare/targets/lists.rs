//! Targets of lists: a walk takes little longer than one of a list that nothing protects.

use super::Rows;
use super::Target::{AtLeast, Shown};
use super::choices::*;
use crate::work::list::{self, BOXED, PLAIN, VEC};

pub fn add(rows: &mut Rows<'_>) {
    for what in ["u64 values", "values of 64 bytes"] {
        let work = format!("walk over a list of 1,000, {what}");
        rows.add(
            &work,
            list::case(what),
            |series| series.name == PLAIN,
            "std LinkedList, unprotected",
            session,
            AtLeast(0.9),
        );
        rows.add(
            &work,
            list::case(what),
            |series| series.name == BOXED,
            "list of boxes, unprotected",
            session,
            AtLeast(0.9),
        );
        rows.add(&work, list::case(what), |series| series.name == VEC, "Vec behind a read lock", session, Shown);
    }
}
