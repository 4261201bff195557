//! Runs the checker over a whole model.

use std::{fmt::Debug, hash::Hash};

use stateright::{Checker as _, Expectation, HasDiscoveries, Model};

/// What an exploration found.
#[derive(Clone, Debug)]
pub struct Explored {
    /// How many distinct states were visited.
    pub states: usize,
    /// The longest way to a state.
    pub depth: usize,
    /// The invariants that broke, each with the steps to it.
    pub broken: Vec<(&'static str, Vec<String>)>,
    /// The interesting states that were never reached, if everything was explored.
    pub unreached: Vec<&'static str>,
}

/// Explores a model breadth first until an invariant breaks, else to the end.
///
/// One thread: the steps to a broken invariant are then the same in every run.
pub fn explore<M>(model: M) -> Explored
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let (mut broken, mut unreached) = (vec![], vec![]);
    for property in checker.model().properties() {
        match (property.expectation, discoveries.get(property.name)) {
            (Expectation::Sometimes, None) => unreached.push(property.name),
            (Expectation::Sometimes, Some(_)) | (_, None) => {}
            (_, Some(path)) => {
                // The path may go on for a while after the step that broke it.
                let holds = |state: &M::State| (property.condition)(checker.model(), state);
                let taken = path.clone().into_vec();
                let taken = taken.into_iter().take_while(|(state, _)| holds(state));
                let steps = taken.filter_map(|(_, action)| Some(format!("{:?}", action?))).collect();
                broken.push((property.name, steps));
            }
        }
    }
    Explored { states: checker.unique_state_count(), depth: checker.max_depth(), broken, unreached }
}
