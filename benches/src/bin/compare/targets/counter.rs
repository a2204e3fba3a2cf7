//! Targets of counts that all threads change.

use super::choices::*;
use super::{Rows, Target};
use crate::plan::Plan;
use crate::work::counter::{COUNT, READ, REFER, case};

pub fn add(rows: &mut Rows<'_>, plan: &Plan) {
    use Target::{AtLeast, Shown};
    let cores = plan.cores;
    rows.add("count, all cores", case(COUNT, cores), one_atomic, "one atomic", ours, AtLeast(5.0));
    rows.add("count, all cores", case(COUNT, cores), sharded, "a sharded array", ours, AtLeast(1.5));
    rows.add("count, 1 thread", case(COUNT, 1), peer, "the better of both", ours, AtLeast(1.5));
    rows.add("read while others count, all cores", case(READ, cores), peer, "the better of both", ours, Shown);
    rows.add("take and put a reference, all cores", case(REFER, cores), peer, "Arc", session, AtLeast(5.0));
    rows.add("the same, with pins", case(REFER, cores), peer, "Arc", each, Shown);
}
