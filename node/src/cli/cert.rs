//! `purlin cert`: shows the certificates of a data directory, and revokes those that its authority
//! has made.
//!
//! Revoking is signed here, since no node has the key to do it for others; then any member is told,
//! and tells the rest. Everything that was ever revoked here is told again, so a command that has
//! reached nobody is simply repeated.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use purlin_client::Client;
use purlin_proto::admin;
use purlin_proto::revocation::{Revocation, Revoked};
use purlin_proto::trust::SignedTrust;
use purlin_proto::{NodeName, Role, Serial};
use purlin_transport::{Certified, Identity};
use serde::Serialize;

use super::Failure;
use super::args::{AskArgs, CertCommand, Format, TokenArgs};
use super::ask::{self, system};
use super::output::{json, note, print, span, table};
use crate::authority;
use crate::home::{Home, HomeError, Revoking};
use crate::renewal::WARN;

/// What is to be revoked, as it is typed: a number, or `ROLE:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Serial(Serial),
    Holder(Identity),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((role, name)) = text.split_once(':') else {
            let wrong = |error| format!("{error}, or node:NAME, client:NAME, operator:NAME");
            return text.parse().map(Self::Serial).map_err(wrong);
        };
        let roles = [Role::Node, Role::Client, Role::Operator];
        let role = roles.into_iter().find(|found| found.word() == role);
        let role = role.ok_or("before the colon may be node, client or operator")?;
        let name = NodeName::new(name).map_err(|error| error.to_string())?;
        Ok(Self::Holder(Identity { name, role }))
    }
}

/// A certificate as it is shown; the names of the fields stay.
#[derive(Debug, Serialize)]
struct Shown {
    role: Role,
    name: NodeName,
    serial: Serial,
    expires_ms: Option<u64>,
    state: &'static str,
    may: Vec<String>,
    file: String,
}

pub(super) fn run(command: CertCommand) -> Result<(), Failure> {
    match command {
        CertCommand::Show(args) => show(&args),
        CertCommand::Renew(ask) => renew(&ask),
        CertCommand::RotateAuthority { finish: false, ask, .. } => rotate(&ask),
        CertCommand::RotateAuthority { finish: true, force, ask } => finish(&ask, force),
        CertCommand::Revoke { targets, ask } => revoke(targets, &ask),
    }
}

fn no(error: impl std::fmt::Display) -> Failure {
    Failure::No(error.to_string())
}

fn show(args: &TokenArgs) -> Result<(), Failure> {
    let dir = Home::locate(args.data_dir.clone()).map_err(no)?;
    let missing = || Failure::No(format!("there is nothing in {}", dir.display()));
    let home = dir.is_dir().then(|| Home::enter(dir.clone())).ok_or_else(missing)?.map_err(no)?;
    let revoked: Vec<_> =
        home.revocations().map_err(no)?.into_iter().map(|signed| signed.revocation).collect();
    let now_ms = millis(SystemTime::now());
    let certificates: Vec<_> = home
        .certificates()
        .into_iter()
        .map(|(stem, certified)| {
            let file = home.dir().join(format!("{stem}.pem")).display().to_string();
            shown(file, &certified, &revoked, now_ms)
        })
        .collect();
    if args.format == Format::Json {
        return json(&serde_json::json!({
            "certificates": certificates,
            "revoked": revoked,
        }));
    }
    let rows = certificates.iter().map(|shown| {
        vec![
            format!("{}:{}", shown.role.word(), shown.name),
            shown.serial.to_string(),
            shown.state.to_owned(),
            shown.expires_ms.map_or_else(|| "-".to_owned(), when),
            match shown.role {
                Role::Client => shown.may.join(" "),
                Role::Node | Role::Operator => "everything of its role".to_owned(),
            },
        ]
    });
    table(&["WHOSE", "SERIAL", "STATE", "EXPIRES", "MAY"], rows.collect())?;
    if revoked.is_empty() {
        return Ok(());
    }
    print("\n")?;
    let rows = revoked.iter().map(|one| {
        let made = match &one.what {
            Revoked::Holder { .. } => "all made before",
            _ => "this one",
        };
        vec![one.what.to_string(), made.to_owned(), when(one.at_ms)]
    });
    table(&["REVOKED", "WHICH", "WHEN"], rows.collect())
}

fn shown(file: String, certified: &Certified, revoked: &[Revocation], now_ms: u64) -> Shown {
    let Identity { name, role } = certified.identity;
    let expires_ms = authority::expires_ms(&certified.der);
    let state = match expires_ms {
        _ if revoked.iter().any(|one| one.covers(role, name, &certified.serial)) => "revoked",
        None => "unreadable",
        Some(expires) if expires <= now_ms => "expired",
        Some(expires) if is_soon(expires) => "expires soon",
        Some(_) => "good",
    };
    let may = certified.permissions.iter().map(ToString::to_string).collect();
    Shown { role, name, serial: certified.serial.clone(), expires_ms, state, may, file }
}

/// When something is, as `in 3d04h` or `2h00m ago`.
pub(super) fn when(at_ms: u64) -> String {
    let now_ms = millis(SystemTime::now());
    let text = |ms| span(Duration::from_millis(ms).as_secs_f64());
    match at_ms.checked_sub(now_ms) {
        Some(left) => format!("in {}", text(left)),
        None => format!("{} ago", text(now_ms - at_ms)),
    }
}

/// Whether a certificate that expires then is warned of.
pub(super) fn is_soon(expires_ms: u64) -> bool {
    let warned = Duration::from_millis(expires_ms).saturating_sub(WARN);
    warned <= SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// The data directory, if the authority's key is there.
fn with_authority(ask: &AskArgs) -> Result<Home, Failure> {
    let dir = Home::locate(ask.data_dir.clone()).map_err(no)?;
    if !Home::has_authority(&dir) {
        return Err(Failure::No(format!(
            "there is no authority.key in {}: this is done where it is, which is where the \
             cluster's first node was started",
            dir.display()
        )));
    }
    Home::enter(dir).map_err(no)
}

fn revoke(targets: Vec<Target>, ask: &AskArgs) -> Result<(), Failure> {
    let home = with_authority(ask)?;
    for target in targets {
        let text = match &target {
            Target::Serial(serial) => serial.to_string(),
            Target::Holder(Identity { name, role }) => format!("{}:{name}", role.word()),
        };
        let what = match target {
            Target::Serial(serial) => Revoking::Serial(serial),
            Target::Holder(holder) => Revoking::Holder(holder),
        };
        home.revoke(what).map_err(no)?;
        note(&format!("revoked {text}"));
    }
    // The command line's own, if that was revoked.
    let renewed = Home::open(home.dir());
    let revocations =
        renewed.and_then(|home| home.revocations()).map_err(|error: HomeError| no(error))?;
    ask::with_client(ask, async move |client| {
        let asked = admin::Revoke { revocations };
        let told = ask::call(client, system(None), asked).await?;
        let new = told.map_err(Failure::No)?;
        note(&format!("told the cluster, {new} of it news"));
        Ok(())
    })
    .map_err(|failure| match failure {
        Failure::NoConnection(error) => Failure::NoConnection(format!(
            "{error}; it is revoked here, but no member knows: repeat it with --at HOST:PORT"
        )),
        other => other,
    })
}

fn renew(ask: &AskArgs) -> Result<(), Failure> {
    let dir = Home::locate(ask.data_dir.clone()).map_err(no)?;
    let home = Home::enter(dir.clone()).map_err(no)?;
    let stems: Vec<_> = home.certificates().into_iter().map(|(stem, ..)| stem).collect();
    if Home::has_authority(&dir) {
        for stem in &stems {
            home.renew_now(stem).map_err(no)?;
            note(&format!("made {stem}.pem anew; a node that runs takes it within some seconds"));
        }
        return Ok(());
    }
    if !stems.iter().any(|stem| stem == "client") {
        return Err(Failure::No(format!(
            "there is no client.pem in {}: nodes have theirs made anew by themselves while they \
             run, from 91 days before it expires",
            dir.display()
        )));
    }
    let asked = home.renewal_request("client").map_err(no)?;
    ask::with_client(ask, async move |client| {
        let answer = ask::call(client, system(None), asked).await?;
        let admission = answer.map_err(Failure::No)?;
        home.take_renewed("client", &admission).map_err(no)?;
        note("made client.pem anew");
        Ok(())
    })
}

/// A first step that has not reached anybody is told again.
fn rotate(ask: &AskArgs) -> Result<(), Failure> {
    let home = with_authority(ask)?;
    let trust = match home.rotate() {
        Ok(trust) => {
            note("made another authority, which signs from now on");
            trust
        }
        Err(error @ HomeError::Rotating) => {
            note(&format!("{error}; telling it again"));
            home.trust().map_err(no)?.ok_or_else(|| no(&error))?
        }
        Err(error) => return Err(no(error)),
    };
    tell_trust(ask, &home, trust)?;
    note(
        "when all members have certificates of the new one, and clients have said `purlin cert \
         renew`: purlin cert rotate-authority --finish",
    );
    Ok(())
}

fn tell_trust(ask: &AskArgs, home: &Home, trust: SignedTrust) -> Result<(), Failure> {
    // The command line's own is made anew.
    Home::open(home.dir()).map_err(no)?;
    let told = ask::with_client(ask, async move |client| {
        let told = ask::call(client, system(None), admin::Believe { trust }).await?;
        told.map(drop).map_err(Failure::No)
    });
    told.map_err(|failure| match failure {
        Failure::NoConnection(error) => Failure::NoConnection(format!(
            "{error}; it is done here, but no member knows: repeat it with --at HOST:PORT"
        )),
        other => other,
    })
}

fn finish(ask: &AskArgs, force: bool) -> Result<(), Failure> {
    let home = with_authority(ask)?;
    let rotating = home.is_rotating().map_err(no)?;
    if rotating && !force {
        ask::with_client(ask, async |client| all_renewed(client).await)?;
    }
    let trust = match home.finish_rotation() {
        Ok(trust) => trust,
        // It is told again, if it was done before.
        Err(error) => home.trust().map_err(no)?.ok_or_else(|| no(error))?,
    };
    tell_trust(ask, &home, trust)?;
    note("the old authority is not believed any more");
    Ok(())
}

/// Whether no member is left behind.
async fn all_renewed(client: &Client) -> Result<(), Failure> {
    let members = ask::call(client, system(None), admin::ListMembers).await?;
    let mut behind = Vec::new();
    for member in members.into_iter().filter(|member| member.state.is_live()) {
        match client.call(system(Some(member.name)), admin::GetTrust).await {
            Ok(info) if info.renewed && info.authorities > 1 => {}
            Ok(_) => behind.push(format!("{} has no new certificate yet", member.name)),
            Err(error) => behind.push(format!("{}: {error}", member.name)),
        }
    }
    match behind.is_empty() {
        true => Ok(()),
        false => Err(Failure::No(format!(
            "{}; try again after a moment, or --force leaves them behind",
            behind.join("; ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_revoked_is_a_number_or_a_holder() {
        let holder = Identity { name: "b".into(), role: Role::Operator };
        assert_eq!("operator:b".parse(), Ok(Target::Holder(holder)));
        let serial = Serial::new(1, [2; 10]);
        assert_eq!(serial.to_string().parse(), Ok(Target::Serial(serial)));
        for wrong in ["", "b", "king:b", "node:", "node:b c", "node:b:c"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
