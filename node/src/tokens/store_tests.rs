//! What a token is good for, and what not.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::authority::Pair;

const HOUR: Duration = Duration::from_hours(1);

struct Setting {
    _dir: tempfile::TempDir,
    tokens: Tokens,
    now: SystemTime,
}

impl Setting {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path().join("home")).unwrap();
        Self { _dir: dir, tokens: Tokens::new(home), now: SystemTime::now() }
    }

    fn token(&self, role: Role, uses: u32) -> Token {
        self.tokens.create(role, &Permissions::default(), HOUR, uses, self.now).unwrap().0
    }

    fn ask(&self, request: &JoinRequest, now: SystemTime) -> JoinAnswer {
        let cluster = Name::new("purlin").unwrap();
        let live = |name: NodeName| {
            (name == NodeName::from("a")).then(|| "10.0.0.1:7400".parse().unwrap())
        };
        self.tokens.take_in(request, &Surroundings { cluster: &cluster, live: &live }, now)
    }
}

/// A request of a name with a key of its own.
fn request(token: &Token, name: &'static str) -> JoinRequest {
    request_with(token, name, &authority::new_key().unwrap())
}

fn request_with(token: &Token, name: &'static str, key: &str) -> JoinRequest {
    let identity = Identity { name: name.into(), role: token.role };
    JoinRequest {
        cluster: Name::new("purlin").unwrap(),
        token: token.id,
        secret: token.secret,
        role: token.role,
        name: name.into(),
        request: authority::request(key, identity).unwrap(),
    }
}

#[test]
fn a_token_gives_a_certificate_of_its_authority_for_the_key_that_was_shown() {
    let setting = Setting::new();
    let token = setting.token(Role::Node, 1);
    let key = authority::new_key().unwrap();

    let admission = setting.ask(&request_with(&token, "b", &key), setting.now).unwrap();

    assert_eq!(authority::fingerprint(&admission.authority), Some(token.authority));
    let pair = Pair { certificate: admission.certificate, key };
    assert!(authority::is_good(&admission.authority, &pair, setting.now));
    let credentials =
        purlin_transport::Credentials::from_pem(&admission.authority, &pair.certificate, &pair.key);
    let identity = Identity { name: "b".into(), role: Role::Node };
    assert_eq!(credentials.unwrap().identity(), identity);
}

#[test]
fn a_use_is_counted_once_for_each_name_and_key() {
    let setting = Setting::new();
    let token = setting.token(Role::Node, 2);
    let first = request(&token, "b");

    setting.ask(&first, setting.now).unwrap();
    setting.ask(&first, setting.now).unwrap();
    setting.ask(&request(&token, "c"), setting.now).unwrap();

    let refused = setting.ask(&request(&token, "d"), setting.now);
    assert_eq!(refused, Err(JoinRefusal::UsedUp { uses: 2 }));
    setting.ask(&first, setting.now).unwrap();
    let listed = setting.tokens.list(setting.now).unwrap();
    assert_eq!((listed[0].used, listed[0].state), (2, TokenState::UsedUp));
    let names: Vec<_> = listed[0].joined.iter().map(|used| used.name.to_string()).collect();
    assert_eq!(names, ["b", "c"]);
}

#[test]
fn a_key_does_not_carry_a_use_to_another_name() {
    let setting = Setting::new();
    let token = setting.token(Role::Node, 1);
    let key = authority::new_key().unwrap();
    setting.ask(&request_with(&token, "b", &key), setting.now).unwrap();

    let other = setting.ask(&request_with(&token, "c", &key), setting.now);

    assert_eq!(other, Err(JoinRefusal::UsedUp { uses: 1 }));
}

#[test]
fn many_at_once_get_no_more_uses_than_there_are() {
    let setting = Setting::new();
    let token = setting.token(Role::Client, 5);
    let names = ["b", "c", "d", "e", "f", "g", "h", "i"];

    let admitted = std::thread::scope(|scope| {
        let threads: Vec<_> = names
            .map(|name| scope.spawn(|| setting.ask(&request(&token, name), setting.now).is_ok()))
            .into();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });

    assert_eq!(admitted.into_iter().filter(|admitted| *admitted).count(), 5);
}

#[test]
fn a_use_that_cannot_be_remembered_is_not_given() {
    use std::os::unix::fs::PermissionsExt;
    let setting = Setting::new();
    let token = setting.token(Role::Node, 1);
    // What is written beside its place is a directory: nothing can be written, also by root.
    let beside = setting.tokens.path().with_extension(format!("tmp{}", std::process::id()));
    std::fs::create_dir(&beside).unwrap();
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o700)).unwrap();

    let refused = setting.ask(&request(&token, "b"), setting.now).unwrap_err();

    assert!(matches!(refused, JoinRefusal::Failed { .. }), "{refused}");
    std::fs::remove_dir(&beside).unwrap();
    setting.ask(&request(&token, "b"), setting.now).unwrap();
}

#[test]
fn an_expired_or_revoked_token_is_refused_and_told_so() {
    let setting = Setting::new();
    let token = setting.token(Role::Node, 1);
    let later = setting.now + HOUR + Duration::from_mins(1);
    let refused = setting.ask(&request(&token, "b"), later);
    assert_eq!(refused, Err(JoinRefusal::Expired { ago_s: 60 }));

    setting.tokens.revoke(token.id).unwrap();

    let refused = setting.ask(&request(&token, "b"), setting.now);
    assert_eq!(refused, Err(JoinRefusal::Revoked));
    let unknown = setting.tokens.revoke(TokenId(1)).unwrap_err();
    assert!(matches!(unknown, TokensError::Unknown(_)), "{unknown}");
}

#[test]
fn who_does_not_know_the_secret_learns_nothing() {
    let setting = Setting::new();
    let token = setting.token(Role::Node, 1);
    setting.tokens.revoke(token.id).unwrap();
    let mut guess = request(&token, "a");
    guess.secret = Secret([0; 16]);

    let refused = setting.ask(&guess, setting.now);

    assert_eq!(refused, Err(JoinRefusal::UnknownToken { silent: 0 }));
    guess.token = TokenId(0);
    assert_eq!(setting.ask(&guess, setting.now), refused);
}

#[test]
fn role_cluster_and_name_must_be_right_and_a_wrong_one_costs_no_use() {
    let setting = Setting::new();
    let token = setting.token(Role::Node, 1);
    let client = JoinRequest { role: Role::Client, ..request(&token, "b") };
    assert_eq!(setting.ask(&client, setting.now), Err(JoinRefusal::Role { role: Role::Node }));
    let other = JoinRequest { cluster: Name::new("other").unwrap(), ..request(&token, "b") };
    let refused = setting.ask(&other, setting.now);
    assert!(matches!(refused, Err(JoinRefusal::Cluster { .. })), "{refused:?}");
    let refused = setting.ask(&request(&token, "a"), setting.now);
    assert!(matches!(refused, Err(JoinRefusal::NameTaken { .. })), "{refused:?}");

    setting.ask(&request(&token, "b"), setting.now).unwrap();
}

#[test]
fn a_request_that_is_none_or_whose_key_is_not_its_makers_is_not_signed() {
    let setting = Setting::new();
    let token = setting.token(Role::Node, 1);
    let good = request(&token, "b");
    for end in 0..good.request.len() {
        let cut = JoinRequest { request: good.request[..end].to_vec(), ..good.clone() };
        let refused = setting.ask(&cut, setting.now).unwrap_err();
        assert!(matches!(refused, JoinRefusal::Request { .. }), "{end}: {refused}");
    }
    setting.ask(&good, setting.now).unwrap();
    for at in 0..good.request.len() {
        let mut changed = good.clone();
        changed.request[at] ^= 1;
        // Around what is signed a bit may not matter; another key would be another use.
        match setting.ask(&changed, setting.now) {
            Ok(_) | Err(JoinRefusal::Request { .. }) => {}
            Err(other) => panic!("{at}: {other}"),
        }
    }
    assert_eq!(setting.tokens.list(setting.now).unwrap()[0].used, 1);
}

#[test]
fn what_is_kept_is_for_the_owner_alone_and_has_no_secret() {
    use std::os::unix::fs::PermissionsExt;
    let setting = Setting::new();
    let token = setting.token(Role::Node, 1);
    let path = setting.tokens.path();

    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let text = std::fs::read_to_string(&path).unwrap();

    assert_eq!(mode, 0o600);
    assert!(!text.contains(&HEXLOWER.encode(&token.secret.0)), "{text}");
    assert!(text.contains(&hash(&token.secret.0)), "{text}");
}

#[test]
fn tokens_are_bounded_and_those_long_over_make_room() {
    let setting = Setting::new();
    let mut records = Vec::new();
    for n in 0..TOKENS {
        records.push(Record {
            id: TokenId(n as u64).to_string(),
            role: Role::Node,
            hash: String::new(),
            created_ms: 0,
            expires_ms: millis(setting.now),
            uses: 1,
            revoked: false,
            used: Vec::new(),
            may: Vec::new(),
        });
    }
    setting.tokens.save(&records).unwrap();

    let refused = setting.tokens.create(Role::Node, &Permissions::default(), HOUR, 1, setting.now);
    assert!(matches!(refused, Err(TokensError::TooMany)), "{refused:?}");

    let later = setting.now + KEPT + HOUR;
    setting.tokens.create(Role::Node, &Permissions::default(), HOUR, 1, later).unwrap();
}

#[test]
fn a_damaged_file_is_said_to_be_and_lets_nobody_in() {
    let setting = Setting::new();
    let token = setting.token(Role::Node, 1);
    std::fs::write(setting.tokens.path(), "[{").unwrap();

    let refused = setting.ask(&request(&token, "b"), setting.now).unwrap_err();

    assert!(matches!(refused, JoinRefusal::Failed { .. }), "{refused}");
    let said = setting.tokens.list(setting.now).unwrap_err().to_string();
    assert!(said.contains("tokens.json is damaged"), "{said}");
}

#[test]
fn a_client_gets_the_permissions_of_its_token_and_no_others() {
    let setting = Setting::new();
    let may = ["call:hits", "send:topic:nüws", "call:key:cart/a b*"];
    let may = Permissions::new(may.map(|may| may.parse().unwrap()).into()).unwrap();
    let token = setting.tokens.create(Role::Client, &may, HOUR, 1, setting.now).unwrap().0;
    let key = authority::new_key().unwrap();

    let admission = setting.ask(&request_with(&token, "b", &key), setting.now).unwrap();

    let credentials =
        purlin_transport::Credentials::from_pem(&admission.authority, &admission.certificate, &key);
    let certified = credentials.unwrap().certified().clone();
    assert_eq!(certified.permissions, may);
    assert!(certified.serial.made_ms().unwrap().abs_diff(millis(setting.now)) < 60_000);
    let listed = setting.tokens.list(setting.now).unwrap();
    assert_eq!(listed[0].may[0], "call:hits");
}

#[test]
fn as_many_permissions_as_a_token_may_have_fit_in_an_answer() {
    use purlin_proto::limits::{JOIN_ANSWER_BYTES, PERMISSION_BYTES, PERMISSIONS};
    let setting = Setting::new();
    let long = "x".repeat(PERMISSION_BYTES - "call:key:k/".len());
    let may = vec![format!("call:key:k/{long}").parse().unwrap(); PERMISSIONS];
    let may = Permissions::new(may).unwrap();
    let token = setting.tokens.create(Role::Client, &may, HOUR, 1, setting.now).unwrap().0;

    let answer = setting.ask(&request(&token, "b"), setting.now);

    assert!(answer.is_ok());
    let bytes = purlin_proto::codec::to_bytes(&answer).unwrap();
    assert!(bytes.len() <= JOIN_ANSWER_BYTES, "{}", bytes.len());
}
