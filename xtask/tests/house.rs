//! What the documents say of the tree is true: where `unsafe` is, why each dependency, where each link leads.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below `place` with this ending, as paths from the root. What was built or fetched is passed over.
fn files(place: &str, ending: &str) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(place)]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with('.') || ["target", "node_modules", "shared"].contains(&name.as_str()) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else if name.ends_with(ending) {
                found.push(entry.path().strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The first two cells of each row of a table whose first cell is in backquotes.
fn rows(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.trim().to_owned()))
    })
}

/// How often a file says `unsafe` in code: blocks, functions, traits and implementations.
fn unsafe_places(text: &str) -> usize {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    let kinds = ["unsafe {", "unsafe impl", "unsafe fn", "unsafe trait", "unsafe extern"];
    code.map(|line| kinds.iter().map(|kind| line.matches(kind).count()).sum::<usize>()).sum()
}

#[test]
fn every_unsafe_place_is_in_the_list() {
    let listed: BTreeMap<String, usize> = rows(&read("docs/unsafe.md"))
        .filter(|(path, _)| path.ends_with(".rs"))
        .map(|(path, count)| (path, count.parse().expect("a count")))
        .collect();
    let this = "xtask/tests/house.rs"; // it only names the word
    let found: BTreeMap<String, usize> = ["crates", "tests", "xtask", "benches", "fuzz"]
        .iter()
        .flat_map(|place| files(place, ".rs"))
        .filter(|path| path != this)
        .map(|path| (path.clone(), unsafe_places(&read(&path))))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(
        found, listed,
        "left: the code; right: docs/unsafe.md. A place that is new needs its reason there"
    );
    assert!(found.len() > 5, "the search finds what is there");
}

#[test]
fn a_crate_outside_the_list_forbids_it() {
    let listed: Vec<String> = rows(&read("docs/unsafe.md")).map(|(path, _)| path).collect();
    for manifest in files("crates", "Cargo.toml") {
        let crate_dir = manifest.strip_suffix("/Cargo.toml").unwrap();
        if listed.iter().any(|path| path.starts_with(&format!("{crate_dir}/src/"))) {
            continue;
        }
        for entry in ["lib.rs", "main.rs"].map(|name| format!("{crate_dir}/src/{name}")) {
            if root().join(&entry).exists() {
                assert!(read(&entry).contains("#![forbid(unsafe_code)]"), "{entry}");
            }
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let architecture = read("ARCHITECTURE.md");
    let (_, table) = architecture.split_once("## Dependencies").expect("the chapter");
    let reasons: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| cell.split(", "))
        .map(|name| name.split(' ').next().unwrap_or(name))
        .collect();
    let mut seen = 0;
    for manifest in ["Cargo.toml", "benches/Cargo.toml"].map(read) {
        let mut inside = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                inside = line.contains("dependencies]");
            }
            let Some((name, value)) = line.split_once('=').filter(|_| inside) else { continue };
            let name = name.trim().trim_end_matches(".workspace");
            if name.starts_with('#') || value.contains("path =") {
                continue;
            }
            seen += 1;
            assert!(reasons.contains(name), "ARCHITECTURE.md does not say why `{name}` is there");
        }
    }
    assert!(seen > 20, "the manifests were read");
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for document in files(".", ".md") {
        let text = read(&document);
        let here = Path::new(&document).parent().unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or("");
            if path.is_empty() || path.contains("://") || path.contains(' ') {
                continue;
            }
            seen += 1;
            assert!(root().join(here).join(path).exists(), "{document} links to {path}, which is not there");
        }
    }
    assert!(seen > 10, "the documents were read");
}
