//! The lives of nodes that were in their shard before it was prepared for expiry.

use crate::node::life::Life;

/// The lives of the nodes that were in a shard when it was prepared for expiry, found by the address of the node.
///
/// No other node gets their slots: see [`ShardState::extend`](crate::shard::state::ShardState::extend). If their memory is
/// freed and becomes part of a new slab, the nodes there have lives of their own and are not looked up here.
pub(crate) struct Early(Box<[(usize, Life)]>);

impl Early {
    /// Creates the lives of the nodes at these addresses.
    pub(crate) fn new(mut addresses: Vec<usize>) -> Self {
        addresses.sort_unstable();
        Early(addresses.into_iter().map(|address| (address, Life::early())).collect())
    }

    /// Returns the life of the node at `address`, if it is one of these nodes.
    pub(crate) fn get(&self, address: usize) -> Option<&Life> {
        let index = self.0.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        Some(&self.0[index].1)
    }
}
