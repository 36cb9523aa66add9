//! The rules of the house that manifests and files keep: who may import whom, how large files are,
//! what the top level is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The names in `[dependencies]` of a manifest.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest = root().join(folder).join("Cargo.toml");
    let text = std::fs::read_to_string(manifest).expect("a manifest");
    let section = text.split("[dependencies]").nth(1).expect("dependencies");
    let lines = section.lines().skip(1).take_while(|line| !line.starts_with('['));
    let name = |line: &str| line.split(['.', ' ', '=']).next().map(str::to_owned);
    lines.filter_map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn each_floor_imports_only_what_lies_below_it() {
    let may_use: [(&str, &[&str]); 6] = [
        ("proto", &[]),
        ("node/cluster", &["purlin-proto"]),
        ("node/runtime", &["purlin-proto"]),
        ("node/transport", &["purlin-proto"]),
        ("node/client", &["purlin-proto", "purlin-transport"]),
        (
            "node",
            &[
                "purlin-proto",
                "purlin-cluster",
                "purlin-runtime",
                "purlin-transport",
                "purlin-client",
            ],
        ),
    ];
    for (folder, allowed) in may_use {
        let ours = dependencies(folder).into_iter().filter(|name| name.starts_with("purlin"));
        for name in ours {
            assert!(allowed.contains(&name.as_str()), "{folder} must not use {name}");
        }
    }
}

#[test]
fn floors_that_have_no_io_cannot_have_it() {
    let must_not: [(&str, &[&str]); 5] = [
        ("proto", &["tokio", "quinn", "rand", "socket2", "nix"]),
        ("node/cluster", &["tokio", "quinn", "socket2", "nix"]),
        ("node/runtime", &["quinn", "rustls", "socket2", "nix", "foca"]),
        ("node/transport", &["foca", "hashring", "clap"]),
        ("node/client", &["foca", "clap", "rcgen", "hashring"]),
    ];
    for (folder, forbidden) in must_not {
        let used = dependencies(folder);
        for name in forbidden {
            assert!(!used.contains(*name), "{folder} must not use {name}");
        }
    }
}

#[test]
fn every_dependency_is_named_in_the_workspace_table_alone() {
    for folder in [
        "proto",
        "node",
        "node/cluster",
        "node/runtime",
        "node/transport",
        "node/client",
        "cluster-tests",
    ] {
        let manifest = root().join(folder).join("Cargo.toml");
        let text = std::fs::read_to_string(manifest).expect("a manifest");
        assert!(!text.contains("version = \""), "{folder} names a version of its own");
        assert!(!text.contains("path = \""), "{folder} names a path of its own");
    }
}

/// How many other crates one of ours brings along.
fn brings(package: &str) -> usize {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none"])
        .args(["--package", package])
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("text");
    let crates: BTreeSet<_> =
        text.lines().filter_map(|line| Some(line.split_once(' ')?.0)).collect();
    crates.len() - 1
}

#[test]
fn what_other_programs_compile_is_as_much_as_is_said() {
    let map = std::fs::read_to_string(root().join("node/ARCHITECTURE.md")).expect("the map");
    for package in ["purlin-proto", "purlin-client"] {
        let said = format!("`{package}` brings {} other crates", brings(package));
        assert!(map.contains(&said), "node/ARCHITECTURE.md should say: {said}");
    }
}

#[test]
fn the_top_level_is_what_it_is_said_to_be() {
    let expected = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "cluster-tests",
        "node",
        "proto",
        "scripts",
    ];
    let found: BTreeSet<_> = std::fs::read_dir(root())
        .expect("the workspace")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    assert_eq!(found, expected.map(str::to_owned).into());
}

/// Every Rust file below a folder.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn files_have_a_head_and_stay_readable() {
    let mut files = Vec::new();
    for folder in ["proto", "node", "cluster-tests"] {
        rust_files(&root().join(folder), &mut files);
    }
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file");
        let place = file.display();
        assert!(text.starts_with("//! "), "{place} has no head");
        let lines = text.lines().count();
        assert!(lines <= 800, "{place} has {lines} lines: is it still one thing?");
        let unreasoned = "#[".to_owned() + "allow(";
        assert!(!text.contains(&unreasoned), "{place}: use #[expect(…, reason = \"…\")]");
    }
}

#[test]
fn scripts_are_short() {
    for entry in std::fs::read_dir(root().join("scripts")).expect("scripts").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("a script");
        assert!(text.lines().count() <= 45, "{}", entry.path().display());
    }
}
