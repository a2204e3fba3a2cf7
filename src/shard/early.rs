//! The lives of nodes that were there before their shard was told to expire.

use crate::node::life::Life;

/// The lives of the nodes that were in a shard when it was told to expire, by the addresses of those nodes. (Their slots are
/// not used for other nodes: see [`State::extend`](crate::shard::state::State::extend).)
pub(crate) struct Early(Box<[(usize, Life)]>);

impl Early {
    pub(crate) fn new(mut addresses: Vec<usize>) -> Self {
        addresses.sort_unstable();
        Early(addresses.into_iter().map(|address| (address, Life::early())).collect())
    }

    pub(crate) fn get(&self, address: usize) -> Option<&Life> {
        let index = self.0.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        Some(&self.0[index].1)
    }
}
