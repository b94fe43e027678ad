//! The book holds together: every page is listed, every link leads somewhere, every command that is named exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use crate::support::{Home, autonomy, page, root};

/// Every page of the book, and the documents at the root, by their path in the repository.
fn documents() -> Vec<String> {
    let mut documents: Vec<_> = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut folders = vec![root().join("docs/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { documents.push(path) }
        }
    }
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut names: Vec<_> = documents.iter().map(|path| relative(path)).collect();
    names.sort();
    names
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

/// A page without its blocks of code.
fn prose(text: &str) -> String {
    let mut code = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Where a page links to: what stands in `](…)`.
fn links(text: &str) -> Vec<String> {
    let text = without_code_spans(&prose(text));
    text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().trim().to_owned()).collect()
}

/// A link's brackets in a code span are an example, not a link.
fn without_code_spans(text: &str) -> String {
    text.split('`').enumerate().map(|(at, part)| if at % 2 == 0 { part } else { "" }).collect()
}

/// The anchors of a page, as mdBook and GitHub make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let mut anchors = BTreeSet::new();
    for line in prose(text).lines().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim();
        if let Some((_, id)) = heading.split_once("{#") {
            anchors.insert(id.trim_end_matches('}').to_owned());
            continue;
        }
        // Of a link in a heading, its words.
        let mut parts = heading.split("](");
        let first = parts.next().unwrap_or_default().to_owned();
        let words = parts.fold(first, |words, part| words + part.split_once(')').map_or("", |(_, rest)| rest));
        let lower = words.to_lowercase();
        let kept = lower.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || "-_".contains(c) => Some(c),
            _ => None,
        });
        let slug: String = kept.collect();
        let times = seen.entry(slug.clone()).or_default();
        anchors.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
        *times += 1;
    }
    anchors
}

/// A path with its `..` taken out.
fn resolved(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, part| {
        if part == Component::ParentDir {
            path.pop();
        } else {
            path.push(part);
        }
        path
    })
}

#[test]
fn the_summary_lists_every_page_once() {
    let listed = links(&page("docs/src/SUMMARY.md"));
    let mut listed: Vec<_> = listed.into_iter().map(|name| format!("docs/src/{name}")).collect();
    listed.sort();
    let pages: Vec<_> =
        documents().into_iter().filter(|name| name.starts_with("docs/src/") && !name.ends_with("SUMMARY.md")).collect();
    assert_eq!(listed, pages);
}

#[test]
fn every_link_within_the_repository_leads_somewhere() {
    let (mut broken, mut count) = (Vec::new(), 0);
    for name in documents() {
        let text = page(&name);
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(path, id)| (path, Some(id)));
            let target = if path.is_empty() {
                root().join(&name)
            } else {
                resolved(&root().join(&name).parent().unwrap().join(path))
            };
            // A page of the book may not lead out of it, but the book's includes and the repository's README may.
            let in_book = name.starts_with("docs/src/");
            let holds = target.exists()
                && (!in_book || target.starts_with(root().join("docs/src")))
                && anchor.is_none_or(|id| anchors(&page(&relative(&target))).contains(id));
            if !holds {
                broken.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    println!("{count} links");
    assert!(count > 100, "the links are no longer found: {count}");
}

#[test]
fn every_included_file_exists() {
    let mut count = 0;
    for name in documents().iter().filter(|name| name.starts_with("docs/src/")) {
        for rest in page(name).split("{{#include ").skip(1) {
            let path = rest.split("}}").next().unwrap();
            assert!(root().join(name).parent().unwrap().join(path).exists(), "{name}: {path}");
            count += 1;
        }
    }
    assert!(count >= 2, "{count}");
}

/// The words of a command line up to its first flag, value or placeholder.
fn words(line: &str) -> Vec<String> {
    let is_word = |word: &&str| *word != "autonomy" && word.chars().all(|c| c.is_ascii_lowercase());
    line.split_whitespace().take_while(is_word).map(str::to_owned).collect()
}

/// The flags of the command itself, not of one that it is piped into.
fn flags(line: &str) -> Vec<String> {
    let own = line.split(['|', '#', '&', '(', ';']).next().unwrap_or_default();
    let flags = own.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
    flags.map(|flag| flag.trim_end_matches(|c: char| !c.is_ascii_lowercase()).to_owned()).collect()
}

/// Each command that a text names, in a code span or a block.
fn commands(text: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let text = text.replace("\\\n", " ");
    let pieces = text.split('`').flat_map(str::lines).map(str::trim_start);
    let lines = pieces.filter_map(|piece| {
        let after_variable = piece.strip_prefix("AUTONOMY_").and_then(|rest| rest.split_once(' '));
        after_variable.map_or(piece, |(_, rest)| rest).strip_prefix("autonomy ")
    });
    lines.map(|line| (words(line), flags(line))).filter(|(words, _)| !words.is_empty()).collect()
}

#[test]
fn every_command_that_is_named_exists_with_its_flags() {
    let home = Home::new();
    let help = |words: &[String]| {
        let output = home.program(autonomy()).args(words).arg("--help").output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    assert!(help(&words("node enrol")).is_none(), "a slip is not found");
    let (mut named, mut flagged) = (BTreeSet::new(), 0);
    for name in documents().into_iter().chain(["gate-core/reasons.toml".to_owned()]) {
        for (words, flags) in commands(&page(&name)) {
            let Some(help) = help(&words) else { panic!("{name}: `autonomy {}` does not exist", words.join(" ")) };
            for flag in flags {
                // As it stands in the help: followed by its value, or by nothing.
                let known = help.split_whitespace().any(|word| word == flag);
                assert!(known, "{name}: `autonomy {}` has no `{flag}`", words.join(" "));
                flagged += 1;
            }
            named.insert(words);
        }
    }
    println!("{} commands, {flagged} flags", named.len());
    assert!(named.len() >= 20 && flagged > 50, "{named:?}");
}

#[test]
fn every_developer_command_that_is_named_exists() {
    let help = fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    let mut count = 0;
    for name in documents() {
        for rest in page(&name).split("cargo xtask ").skip(1) {
            let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            assert!(help.contains(&format!("\n  {word} ")), "{name}: `cargo xtask {word}`");
            count += 1;
        }
    }
    assert!(count > 5, "{count}");
}

#[test]
fn anchors_are_made_as_the_book_makes_them() {
    let page = "# The log\n## 1. Make a key\n### `a: b_c` {#own}\n## Twice\n## Twice\n```sh\n# no heading\n```\n## See [x](y.md)!\n";
    let expected = ["1-make-a-key", "own", "see-x", "the-log", "twice", "twice-1"];
    assert_eq!(anchors(page).iter().map(String::as_str).collect::<Vec<_>>(), expected);
    assert_eq!(links("[a](b.md#c) `[x](y)` ![](d.png)\n```\n[e](f)\n```"), ["b.md#c", "d.png"]);
}
