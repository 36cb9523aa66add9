//! What permissions are, and what they allow.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::admin::{Leave, ListMembers, Renew, Subscribe, SubscribeTopic, WhereIs, WhereIsGlobal};
use crate::id::{NodeId, Pid, Reference};
use crate::message::{Message, MessageName};
use crate::name::NodeName;
use crate::payload::{Codec, Payload};
use crate::session::Request;
use crate::{Dest, ExitReason};

fn may(rules: &[&str]) -> Permissions {
    Permissions::new(rules.iter().map(|rule| rule.parse().unwrap()).collect()).unwrap()
}

fn session() -> Pid {
    NodeId::new("a".into(), 1).pid(7)
}

fn judge(may: &Permissions, request: &Request, kind: Option<&str>) -> Verdict {
    may.judge(request, &Asker { session: Some(session()), node: "a".into() }, kind)
}

fn call_named(to: &str, message: &'static str, payload: Payload) -> Request {
    Request::Call {
        reference: Reference(1),
        to: to.parse().unwrap(),
        remaining: Duration::from_secs(1),
        message: MessageName::from(Name::from(message)),
        payload,
    }
}

fn empty() -> Payload {
    Payload::encode(Codec::Bincode, &()).unwrap()
}

fn call(to: &str) -> Request {
    call_named(to, "counter.add", empty())
}

fn send(to: &str) -> Request {
    let message = MessageName::from(Name::from("counter.add"));
    Request::Send { to: to.parse().unwrap(), message, payload: empty() }
}

fn monitor(to: &str) -> Request {
    Request::Monitor { reference: Reference(1), target: to.parse().unwrap() }
}

fn exit(to: &str) -> Request {
    Request::Exit { target: to.parse().unwrap(), reason: ExitReason::Shutdown }
}

fn spawn(kind: &'static str, name: Option<&'static str>, on: Option<&'static str>) -> Request {
    Request::Spawn {
        reference: Reference(1),
        kind: kind.into(),
        args: empty(),
        name: name.map(Into::into),
        on: on.map(Into::into),
        remaining: Duration::from_secs(1),
    }
}

/// A question to the node itself.
fn ask<M: Message>(message: &M) -> Request {
    ask_at("purlin", message)
}

fn ask_at<M: Message>(to: &str, message: &M) -> Request {
    call_named(to, M::NAME, Payload::encode(Codec::Json, message).unwrap())
}

fn allowed(may: &Permissions, request: &Request) -> bool {
    judge(may, request, None) == Verdict::Allowed
}

#[test]
fn without_permissions_nothing_is_allowed() {
    let none = Permissions::default();
    let all = [
        call("hits"),
        send("topic:news"),
        monitor("global:x"),
        exit("hits@b"),
        spawn("counter", None, None),
        ask(&ListMembers),
        ask(&WhereIs { name: "hits".into() }),
    ];
    for request in all {
        assert!(!allowed(&none, &request), "{request:?}");
    }
    assert!(allowed(&none, &Request::Demonitor { reference: Reference(1) }));
    // Its own certificate, which it has to prove.
    let (certificate, request) = (vec![1], vec![2]);
    assert!(allowed(&none, &ask(&Renew { certificate, request, forwarded: false })));
}

#[test]
fn each_form_covers_its_own_and_no_other() {
    let forms = [
        ("hits", "hits"),
        ("hi*", "hits@b"),
        ("hits@b", "hits@b"),
        ("hits@a", "hits"),
        ("global:shop-*", "global:shop-1"),
        ("group:workers", "group:workers"),
        ("group:jobs/*", "group:jobs/workers:nearest"),
        ("topic:news", "topic:news"),
        ("key:cart/*", "key:cart/a b/c"),
        ("pid:b", "<b.1.3>"),
    ];
    let dests: Vec<_> = forms.iter().map(|(_, dest)| *dest).collect();
    for (rule, dest) in forms {
        let rules = may(&[&format!("call:{rule}")]);
        assert!(allowed(&rules, &call(dest)), "{rule} allows {dest}");
        let others = dests.iter().filter(|other| {
            let form = |text: &str| text.split_once(':').map_or("", |(form, _)| form).to_owned();
            form(other) != form(dest) || other.starts_with('<') != dest.starts_with('<')
        });
        for other in others {
            assert!(!allowed(&rules, &call(other)), "{rule} does not allow {other}");
        }
    }
    for (rule, dest) in [
        ("hits@b", "hits"),
        ("hits@b", "hits@c"),
        ("hit", "hits"),
        ("global:shop-*", "global:shop"),
        ("group:workers", "group:jobs/workers"),
        ("key:cart/4*", "key:cart/5"),
        ("pid:b", "<a.1.3>"),
    ] {
        assert!(!allowed(&may(&[&format!("call:{rule}")]), &call(dest)), "{rule}: {dest}");
    }
}

#[test]
fn who_may_call_may_send_and_monitor_and_who_may_send_may_not_call() {
    let (calls, sends, exits) = (may(&["call:hits"]), may(&["send:hits"]), may(&["exit:hits"]));
    for (rules, expected) in [
        (&calls, [true, true, true, false]),
        (&sends, [false, true, true, false]),
        (&exits, [false, false, false, true]),
    ] {
        let found = [call("hits"), send("hits"), monitor("hits"), exit("hits")];
        assert_eq!(found.map(|request| allowed(rules, &request)), expected, "{rules:?}");
    }
}

#[test]
fn a_pid_is_judged_by_its_kind_when_that_is_known() {
    let rules = may(&["call:kind:count*"]);
    let request = call("<b.1.3>");
    let pid = NodeId::new("b".into(), 1).pid(3);

    assert_eq!(judge(&rules, &request, None), Verdict::OfKind(pid));
    assert_eq!(judge(&rules, &request, Some("counter")), Verdict::Allowed);
    let refused = judge(&rules, &request, Some("kv"));
    assert_eq!(refused, Verdict::Forbidden { what: "call b.1.3".to_owned() });
    // A kind says nothing of names.
    assert!(!allowed(&rules, &call("hits")));
}

#[test]
fn spawning_takes_its_own_permission_and_one_for_the_name() {
    let rules = may(&["spawn:counter@b", "send:hits-*"]);
    assert!(allowed(&rules, &spawn("counter", None, Some("b"))));
    assert!(allowed(&rules, &spawn("counter", Some("hits-1"), Some("b"))));
    assert!(!allowed(&rules, &spawn("counter", Some("bank"), Some("b"))));
    assert!(!allowed(&rules, &spawn("counter", None, None)));
    assert!(!allowed(&rules, &spawn("kv", None, Some("b"))));
}

#[test]
fn reading_is_allowed_as_a_whole_and_what_may_be_addressed_may_be_looked_up() {
    let (read, few) = (may(&["read"]), may(&["call:hits", "send:global:shop"]));
    for request in [ask(&ListMembers), ask_at("purlin@b", &ListMembers)] {
        assert!(allowed(&read, &request) && !allowed(&few, &request), "{request:?}");
    }
    let hits = WhereIs { name: "hits".into() };
    assert!(allowed(&few, &ask(&hits)) && allowed(&few, &ask_at("purlin@b", &hits)));
    assert!(allowed(&few, &ask(&WhereIsGlobal { name: "shop".into() })));
    assert!(!allowed(&few, &ask(&WhereIs { name: "bank".into() })));
    assert!(!allowed(&few, &ask(&WhereIsGlobal { name: "hits".into() })));
}

#[test]
fn only_the_session_itself_is_subscribed() {
    let rules = may(&["read", "subscribe:news"]);
    let topic = |topic: &'static str, pid| ask(&SubscribeTopic { topic: topic.into(), pid });
    let other = NodeId::new("b".into(), 1).pid(3);
    assert!(allowed(&rules, &topic("news", session())));
    assert!(!allowed(&rules, &topic("news", other)));
    assert!(!allowed(&rules, &topic("weather", session())));
    assert!(allowed(&rules, &ask(&Subscribe { subscriber: session() })));
    assert!(!allowed(&rules, &ask(&Subscribe { subscriber: other })));
    assert!(!allowed(&may(&["subscribe:*"]), &ask(&Subscribe { subscriber: session() })));
}

#[test]
fn no_permission_reaches_what_is_an_operators_by_whatever_address() {
    let all = may(&[
        "read",
        "call:*",
        "call:global:*",
        "call:group:*/*",
        "call:key:*/*",
        "call:pid:*",
        "call:kind:*",
        "spawn:*",
        "exit:*",
        "subscribe:*",
        "send:topic:*",
    ]);
    for to in ["purlin", "purlin@b", "<b.1.1>", "global:x", "group:x", "key:cart/1"] {
        let refused = judge(&all, &ask_at(to, &Leave), Some("purlin"));
        assert!(matches!(refused, Verdict::Forbidden { .. }), "{to}: {refused:?}");
    }
    let malformed = call_named("purlin", WhereIs::NAME, empty());
    assert!(!allowed(&all, &malformed));
    assert!(!allowed(&all, &call_named("hits", "purlin.idle_timeout", empty())));
}

#[test]
fn what_is_not_a_permission_is_said_to_be_none() {
    for text in [
        "",
        "read:x",
        "call",
        "call:",
        "call:x:y",
        "cal:hits",
        "call:hits@",
        "call:hits@b/c",
        "call:key:cart",
        "call:group:a/b/c",
        "spawn:",
        "spawn:a@",
        "subscribe:",
        "call:a b",
        "call:pid:",
        "call:hits@bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    ] {
        assert!(text.parse::<Permission>().is_err(), "{text}");
    }
    let long = format!("call:key:cart/{}", "ü".repeat(100));
    assert_eq!(long.parse::<Permission>(), Err(PermissionError::TooLong));
    let many = vec!["read".parse().unwrap(); PERMISSIONS + 1];
    assert_eq!(Permissions::new(many), Err(PermissionError::TooMany));
    let uris = vec!["purlin-may:newer:thing"; PERMISSIONS + 1];
    assert_eq!(Permissions::from_uris(uris.into_iter()), Err(PermissionError::TooMany));
}

#[test]
fn what_is_of_a_newer_version_allows_nothing() {
    let uris = ["purlin:client:c", "purlin-may:fly:moon", "purlin-may:call:hits", "urn:x"];
    let found = Permissions::from_uris(uris.into_iter()).unwrap();
    let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!((texts, found.is_partial()), (vec!["call:hits".to_owned()], true));
    assert!(!may(&["call:hits"]).is_partial());
}

/// Whether a text is like a pattern, as one would define it.
fn plainly(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|taken| plainly(rest, &text[taken..])),
        Some((first, rest)) => {
            text.split_first().is_some_and(|(c, text)| c == first && plainly(rest, text))
        }
    }
}

proptest! {
    #[test]
    fn patterns_match_what_they_say(pattern in "[ab*ü]{0,8}", text in "[abü]{0,8}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = plainly(&chars(&pattern), &chars(&text));
        prop_assert_eq!(Pattern::new(&pattern).matches(&text), expected);
    }

    #[test]
    fn a_permission_is_read_as_it_is_written(key in "[^\\p{Cc}]{1,20}", name in "[a-z*]{1,9}") {
        for text in [format!("call:key:cart/{key}"), format!("send:global:{name}")] {
            let permission: Permission = text.parse().unwrap();
            prop_assert_eq!(permission.to_string(), text);
            let uri = permission.to_uri();
            prop_assert!(uri.is_ascii());
            prop_assert_eq!(Permission::from_uri(&uri), Some(Ok(permission)));
        }
    }

    #[test]
    fn any_text_is_a_permission_or_an_error(text in ".{0,80}", to in "[a-z]{1,9}") {
        drop(text.parse::<Permission>());
        drop(Permission::from_uri(&format!("purlin-may:{text}")));
        let rules = may(&["call:b*"]);
        let node: NodeName = "a".into();
        let request = Request::Monitor { reference: Reference(1), target: Dest::Local(Name::new(&to).unwrap()) };
        let verdict = rules.judge(&request, &Asker { session: None, node }, None);
        prop_assert_eq!(verdict == Verdict::Allowed, to.starts_with('b'));
    }
}
