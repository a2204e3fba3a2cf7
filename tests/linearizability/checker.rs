//! Decides whether a history of one key has an order, by the search of Wing and Gong with Lowe's cache of tried states.
//!
//! A history is linearizable if its calls have an order with two properties. A map for one thread would give the same
//! results in this order. And no call comes before another that had returned when it began. A history of several keys
//! is linearizable if the history of each key is (Herlihy and Wing call this locality). So each key is searched for
//! itself.
//!
//! A thread makes one call at a time. So the number of calls of each thread identifies the calls that are in order so
//! far. Long histories are therefore no harder than short ones: only calls that overlap make the search try more than
//! one order.

use std::collections::HashSet;

/// The value that the map holds for the key. No value is written twice.
pub type State = Option<u64>;

/// What a call found under its key, and what it left there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The call found this and left it.
    Saw(State),
    /// The call found some value and left it.
    SawSome,
    /// The call did not find this value: it found another or none.
    SawNot(u64),
    /// The call found the first and left the second.
    Changed(State, State),
    /// The call left nothing. It may have found anything.
    Cleared,
    /// The call left nothing, or what it found. An eviction does not say which entry it removed.
    MayHaveCleared,
}

/// The most ways in which a call can have gone.
const WAYS: usize = 2;

impl Effect {
    /// Returns the state that the call leaves if it found `state` and went that `way`, or `None` if this is impossible.
    fn after(self, state: State, way: usize) -> Option<State> {
        match self {
            Effect::MayHaveCleared => Some(if way == 0 { state } else { None }),
            _ if way > 0 => None,
            Effect::Saw(found) => (found == state).then_some(state),
            Effect::SawSome => state.is_some().then_some(state),
            Effect::SawNot(value) => (state != Some(value)).then_some(state),
            Effect::Changed(found, left) => (found == state).then_some(left),
            Effect::Cleared => Some(None),
        }
    }
}

/// A call. `begun` is before it took effect, and `ended` is after that.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub begun: u64,
    pub ended: u64,
    pub effect: Effect,
}

/// The most threads in a history.
pub const THREADS: usize = 4;

/// Returns an order of all calls, for a key that is absent at first. Each item is the thread whose next call comes
/// next. If there is no order, returns the longest order of some calls that no other call can follow.
pub fn order(threads: &[Vec<Call>; THREADS]) -> Result<Vec<usize>, Vec<usize>> {
    for calls in threads {
        assert!(calls.iter().all(|call| call.begun <= call.ended));
        assert!(calls.windows(2).all(|pair| pair[0].ended <= pair[1].begun), "a thread makes one call at a time");
    }
    // How many calls of each thread are in order, and the state that they lead to. If the search was at such a point
    // before, there is no order from there on. Otherwise it would have been found (Lowe).
    let (mut taken, mut state) = ([0; THREADS], None);
    let mut tried = HashSet::from([(taken, state)]);
    // For each call in order: the choice, which is its thread and its way, and the state before it.
    let mut steps: Vec<(usize, State)> = Vec::new();
    let threads_of = |steps: &[(usize, State)]| steps.iter().map(|(choice, _)| choice / WAYS).collect();
    let mut longest: Vec<usize> = Vec::new();
    let mut from = 0;
    loop {
        let next = |thread: usize| threads[thread].get(taken[thread]);
        let Some(first_end) = (0..THREADS).filter_map(next).map(|call| call.ended).min() else {
            return Ok(threads_of(&steps));
        };
        let step = (from..THREADS * WAYS).find_map(|choice| {
            let thread = choice / WAYS;
            // A call cannot come before one that had returned when it began. If two times are equal, their order is
            // unknown.
            let call = next(thread).filter(|call| call.begun <= first_end)?;
            let state = call.effect.after(state, choice % WAYS)?;
            let mut taken = taken;
            taken[thread] += 1;
            tried.insert((taken, state)).then_some((choice, state))
        });
        if let Some((choice, after)) = step {
            steps.push((choice, state));
            taken[choice / WAYS] += 1;
            (state, from) = (after, 0);
            continue;
        }
        if steps.len() > longest.len() {
            longest = threads_of(&steps);
        }
        let Some((choice, before)) = steps.pop() else { return Err(longest) };
        taken[choice / WAYS] -= 1;
        (state, from) = (before, choice + 1);
    }
}
