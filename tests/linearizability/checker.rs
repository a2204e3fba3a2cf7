//! Whether a history of one key has an order: Wing and Gong's search, with Lowe's memory of what was tried.
//!
//! A history is linearizable if its calls can be put into one order that a map for one thread would allow, and that puts a
//! call before every other that began after it had returned. Keys are objects apart, and a history of several is
//! linearizable if that of each is (Herlihy and Wing call it locality): so each is searched for itself.
//!
//! A thread makes one call at a time. So what has been put in order is told by how many calls of each thread are in it, and
//! long histories are no harder than short ones: the search goes astray by as many calls as overlap.

use std::collections::HashSet;

/// What the map holds for the key. Values are never written twice.
pub type State = Option<u64>;

/// What a call found out of its key, and did to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It found this, and left it.
    Saw(State),
    /// It found something.
    SawSome,
    /// It found not this value: another or none.
    SawNot(u64),
    /// It found this and left that.
    Changed(State, State),
    /// It left nothing, whatever it found.
    Cleared,
    /// It left nothing, or whatever it found: who evicts is not told which entry went.
    MayHaveCleared,
}

/// Ways in which a call may have gone, at the most.
const WAYS: usize = 2;

impl Effect {
    /// What it leaves, if it can have found `state` and gone that `way`.
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

/// A call, from an instant before it took effect to one after that.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub begun: u64,
    pub ended: u64,
    pub effect: Effect,
}

/// The most threads in a history.
pub const THREADS: usize = 4;

/// An order of all the calls, each thread's in theirs, on a key that is absent at first: which thread's next call is next.
/// If there is none, the longest order of some of them that no other call can follow.
pub fn order(threads: &[Vec<Call>; THREADS]) -> Result<Vec<usize>, Vec<usize>> {
    for calls in threads {
        assert!(calls.iter().all(|call| call.begun <= call.ended));
        assert!(calls.windows(2).all(|pair| pair[0].ended <= pair[1].begun), "one call at a time");
    }
    // How many calls of each thread are in order, and what they led to. Where that has been before there is no order from
    // there on, or it would have been found (Lowe).
    let (mut taken, mut state) = ([0; THREADS], None);
    let mut tried = HashSet::from([(taken, state)]);
    // The choice of each call in order, which is its thread and way, and the state before.
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
            // Not before one that had returned when this one began. The order of equal times is not known.
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
