//! What must be reached somewhere, to show that a case does something: without it, "no promise is broken" says nothing.

use stateright::Property;

use crate::case::Case;
use crate::model::Chains;

/// The `sometimes` properties that a case can reach.
pub fn properties(case: &Case) -> Vec<Property<Chains>> {
    let mut found = vec![Property::<Chains>::sometimes("a commit in epoch 2 or later", |model, world| {
        model.reached(world).committed_epoch >= 2 && model.is_first(20)
    })];
    if case.nodes > case.chain {
        found.push(Property::<Chains>::sometimes("a commit of a chain with a learner", |model, world| {
            let reached = model.reached(world);
            reached.has_learner && reached.committed_epoch == world.active && model.is_first(21)
        }));
    }
    if case.chain > 1 {
        found.push(Property::<Chains>::sometimes("a commit of a later chain of several", |model, world| {
            let reached = model.reached(world);
            reached.members > 1 && reached.committed_epoch == world.active && world.active > 1 && model.is_first(22)
        }));
    }
    if case.crashes >= 2 {
        found.push(Property::<Chains>::sometimes("a commit after two crashes", |model, world| {
            let (reached, spent) = (model.reached(world), &world.spent);
            let is_it = spent.crashes >= 2 && reached.all_current && world.active > 1;
            is_it && reached.committed_epoch == world.active && model.is_first(23)
        }));
    }
    found
}
