//! Where a child is to run.

use purlin_proto::child::{ChildPlacement, Mode};
use purlin_proto::{Labels, NodeId, NodeName};

use super::{Members, Scene};

/// The member that a child is to run on; `None` if none takes it.
pub fn place(scene: &Scene<'_>) -> Option<NodeId> {
    let taking = || scene.members.live.iter().filter(|(_, host)| host.takes);
    let least = |fit: &dyn Fn(NodeName) -> bool| {
        let fitting = taking().filter(|(name, _)| fit(**name));
        fitting.min_by_key(|(name, host)| (host.children, **name)).map(|(_, host)| host.id)
    };
    let exclusive = scene.record.plan.mode == Mode::Exclusive;
    match &scene.record.plan.placement {
        // Nobody else may run it.
        _ if exclusive => {
            let owner = scene.members.live.get(&scene.owner).filter(|owner| owner.takes);
            owner.map(|owner| owner.id)
        }
        ChildPlacement::Ring => {
            let owner = taking().find(|(name, _)| **name == scene.owner);
            owner.map(|(_, host)| host.id).or_else(|| least(&|_| true))
        }
        ChildPlacement::Labels(labels) => least(&|name| fits(scene.members, name, labels)),
        ChildPlacement::LeastLoaded => least(&|_| true),
    }
}

/// Whether a child may be on this node, though another one might be better.
pub(super) fn may_be(scene: &Scene<'_>, node: NodeId) -> bool {
    let takes =
        scene.members.live.get(&node.name).is_some_and(|host| host.id == node && host.takes);
    takes
        && match &scene.record.plan.placement {
            _ if scene.record.plan.mode == Mode::Exclusive => scene.owner == node.name,
            // Where the owner takes nothing, another one does.
            ChildPlacement::Ring => {
                let owner = scene.members.live.get(&scene.owner);
                scene.owner == node.name || owner.is_none_or(|owner| !owner.takes)
            }
            ChildPlacement::Labels(labels) => fits(scene.members, node.name, labels),
            ChildPlacement::LeastLoaded => true,
        }
}

/// Whether a member has these labels.
pub(super) fn fits(members: &Members, name: NodeName, wanted: &Labels) -> bool {
    members
        .live
        .get(&name)
        .is_some_and(|host| wanted.iter().all(|(key, value)| host.labels.get(key) == Some(value)))
}
