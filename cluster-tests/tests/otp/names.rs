//! NM: names on a node.

use purlin::{Dest, ExitReason, Name, RegisterError};

use crate::hand::{Got, Hand, Number};
use crate::place::{Place, places, settle, until};

fn named(name: &str) -> Name {
    Name::new(name).unwrap()
}

async fn nm_1_a_name_is_given_once_and_a_process_has_one(place: Place) {
    let (first, second) = (Hand::named(&place.there, "first"), Hand::start(&place.there));
    let names = place.there.runtime();

    let taken = names.register(named("first"), second.pid);
    let twice = names.register(named("second"), first.pid);

    let (name, holder) = (named("first"), first.pid);
    assert_eq!(taken, Err(RegisterError::Taken { name: name.clone(), holder }));
    assert_eq!(twice, Err(RegisterError::HasName { name }));
    assert_eq!(names.whereis(&named("second")), None);
}

async fn nm_2_neither_the_dead_nor_a_process_elsewhere_is_given_a_name(place: Place) {
    let (target, dead) = (Hand::start(&place.there), Hand::start(&place.here));
    place.here.exit(dead.pid, ExitReason::Kill);
    until("its end", || !dead.is_alive()).await;
    settle().await;
    let names = place.here.runtime();

    let of_the_dead = names.register(named("dead"), dead.pid);
    let elsewhere = names.register(named("elsewhere"), target.pid);

    assert_eq!(of_the_dead, Err(RegisterError::NoProcess));
    assert_eq!(elsewhere.is_ok(), place.is_local(), "{elsewhere:?}");
    assert_eq!(names.whereis(&named("dead")), None);
}

async fn nm_3_an_unknown_name_is_nobodys(place: Place) {
    let names = place.there.runtime();

    assert_eq!(names.whereis(&named("nobody")), None);
    assert!(!names.unregister(&named("nobody")));
}

async fn nm_3_a_name_can_be_taken_again_once_it_is_free(place: Place) {
    let (first, second) = (Hand::named(&place.there, "name"), Hand::start(&place.there));
    let names = place.there.runtime();

    assert!(names.unregister(&named("name")) && !names.unregister(&named("name")));
    names.register(named("name"), second.pid).unwrap();
    place.there.exit(first.pid, ExitReason::Kill);
    settle().await;

    assert_eq!(names.whereis(&named("name")), Some(second.pid), "not freed by its former holder");
}

async fn nm_4_a_name_is_resolved_when_the_message_arrives(place: Place) {
    let mut late = Hand::start(&place.there);
    let sender = Hand::start(&place.here);
    let to = Dest::Remote(named("late"), place.there.id().name);
    place.be_far();

    sender.does(move |ctx| ctx.runtime().send(to, Number(1))).await;
    place.there.runtime().register(named("late"), late.pid).unwrap();

    assert_eq!(late.next().await, Got::Number(1));
}

async fn nm_4_a_name_that_moves_takes_later_messages_along(place: Place) {
    let (mut first, mut second) = (Hand::named(&place.there, "name"), Hand::start(&place.there));
    let sender = Hand::start(&place.here);
    let to = Dest::Remote(named("name"), place.there.id().name);

    for (round, names) in (0..).zip([first.pid, second.pid, first.pid]) {
        place.there.runtime().unregister(&named("name"));
        place.there.runtime().register(named("name"), names).unwrap();
        let to = to.clone();
        sender.does(move |ctx| ctx.runtime().send(to, Number(round))).await;
        settle().await;
    }

    assert_eq!(first.rest(), [Got::Number(0), Got::Number(2)]);
    assert_eq!(second.rest(), [Got::Number(1)]);
}

places! {
    both {
        nm_1_a_name_is_given_once_and_a_process_has_one
        nm_2_neither_the_dead_nor_a_process_elsewhere_is_given_a_name
        nm_3_an_unknown_name_is_nobodys
        nm_3_a_name_can_be_taken_again_once_it_is_free
        nm_4_a_name_that_moves_takes_later_messages_along
    }
    local {}
    remote {
        nm_4_a_name_is_resolved_when_the_message_arrives
    }
}
