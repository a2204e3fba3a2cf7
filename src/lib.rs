//! A registry of shared, reference-counted objects with lock-free reads and promised reclamation.

#![deny(unsafe_code)]

mod batch;
mod bucket;
mod builder;
mod clock;
mod core;
mod domain;
mod error;
mod handle;
mod iter;
mod node;
mod reader;
mod refs;
mod registry;
mod shard;
mod stats;
mod sweep;
mod sync;
mod table;
mod view;

pub use builder::Builder;
pub use clock::{Clock, ManualClock, MonotonicClock};
pub use domain::{Cookie, Domain, DomainBuilder, DomainGuard, Session};
pub use error::{ForeignGuard, Occupied};
pub use handle::Handle;
pub use iter::{Cursor, Iter};
pub use reader::Reader;
pub use registry::Registry;
pub use stats::Stats;
pub use sweep::Drain;
pub use view::{Entry, Guard, View};
