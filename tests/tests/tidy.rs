//! What the house promises about itself, read from its sources: imports go where ARCHITECTURE.md's table lets them, pure
//! rooms stay pure, `unsafe` stays in its rooms, files stay short and open with their contract, and nothing names a machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use corelane_tests::binary;

const LINES_AT_MOST: usize = 800;

/// Crates by the name of their directory; `tools` is the package `corelane`.
const CRATES: [&str; 6] = ["wire", "client", "broker", "bench", "tools", "tests"];

/// Rooms that do no I/O and read no clock, and the file in them that does: the log's `Io` over `std::fs`.
const PURE: [&str; 3] = ["wire/src/", "broker/src/engine/", "broker/src/log/"];
const NOT_PURE: [&str; 1] = ["broker/src/log/std_io.rs"];
const IMPURE: [&str; 14] = [
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "Instant::now",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Mutex",
    "RwLock",
    "glommio",
    "io_uring",
    "clippy::disallowed",
];

/// Where `unsafe` may be.
const UNSAFE: [&str; 10] = [
    "broker/src/ring/",
    "broker/src/net/",
    "broker/src/log/buffer.rs",
    "broker/src/log/memory.rs",
    "broker/src/shard/disk.rs",
    "broker/src/shard/heap.rs",
    "broker/src/shard/writer.rs",
    "broker/src/shard/sink.rs",
    "bench/src/ring/",
    "tests/",
];

/// A source file of a crate; `path` is relative to the workspace.
struct Source {
    path: String,
    text: String,
    /// Whether all of it is test code.
    test: bool,
}

impl Source {
    /// The modules that it has for tests only, as the paths of their files without the ending.
    fn test_modules(&self) -> Vec<String> {
        let below = self.path.trim_end_matches(".rs");
        let inner = ["mod", "lib", "main"]
            .iter()
            .find_map(|root| below.strip_suffix(&format!("/{root}")));
        let after_cfg = self.text.split("#[cfg(test)]\n").skip(1);
        let mut modules = Vec::new();
        for rest in after_cfg {
            let item = rest.lines().find(|line| !line.starts_with("#["));
            let name = item
                .and_then(|line| line.trim_end_matches(';').rsplit_once("mod "))
                .map(|(_, name)| name);
            modules.extend(name.map(|name| format!("{}/{name}", inner.unwrap_or(below))));
        }
        modules
    }

    /// Without comments, and without the test module at the end.
    fn code(&self) -> String {
        let attribute = |line: &&&str| line.starts_with("#[");
        let mut lines: Vec<&str> = self.text.lines().collect();
        let tests =
            |at: usize| lines[at..].iter().find(|line| !attribute(line)) == Some(&"mod tests {");
        let end = (0..lines.len())
            .find(|at| lines[*at] == "#[cfg(test)]" && tests(*at))
            .unwrap_or(lines.len());
        lines.truncate(end);
        lines.retain(|line| !line.trim_start().starts_with("//"));
        lines.join("\n")
    }

    /// The room of `broker/src` that it lies in.
    fn room(&self) -> Option<&str> {
        let (room, rest) = self.path.strip_prefix("broker/src/")?.split_once('/')?;
        (!rest.is_empty()).then_some(room)
    }

    /// How many modules it lies below the root of its crate.
    fn depth(&self) -> usize {
        let below = self.path.split_once("/src/").map_or("", |(_, below)| below);
        below.split('/').count() - usize::from(below.ends_with("/mod.rs"))
    }
}

fn workspace() -> PathBuf {
    binary::source("..").canonicalize().expect("the workspace")
}

/// All files below `dir` that are not built, with their paths relative to the workspace.
fn files(dir: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("a directory entry").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if !["target", ".git", "corelane-data", "corpus", "artifacts"].contains(&name.as_str())
            {
                found.extend(files(&path));
            }
        } else if path.is_file() && name != ".git" {
            let relative = path
                .strip_prefix(workspace())
                .expect("a file of the workspace");
            found.push((relative.display().to_string(), path));
        }
    }
    found
}

fn sources() -> Vec<Source> {
    let rust = files(&workspace())
        .into_iter()
        .filter(|(path, _)| path.ends_with(".rs"));
    let read = |(path, file): (String, PathBuf)| {
        let test = !path.contains("/src/") && !path.ends_with("build.rs");
        Source {
            path,
            text: fs::read_to_string(file).expect("a source file"),
            test,
        }
    };
    let mut sources: Vec<Source> = rust.map(read).collect();
    assert!(
        sources.len() > 50,
        "only {} source files were found",
        sources.len()
    );
    let modules: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        let of = |module: &String| {
            source.path == format!("{module}.rs") || source.path.starts_with(&format!("{module}/"))
        };
        source.test |= modules.iter().any(of);
    }
    sources
}

/// What each crate and each room of the broker may import, with all that these may import: the table of ARCHITECTURE.md.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(workspace().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut table: BTreeMap<String, (BTreeSet<String>, String)> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert!(cells.len() == 5, "a row has three cells: {line}");
        let room = quoted(cells[1])
            .remove(0)
            .trim_start_matches("broker/src/")
            .to_owned();
        table.insert(
            room,
            (quoted(cells[3]).into_iter().collect(), cells[3].to_owned()),
        );
    }
    assert!(
        table.contains_key("engine") && table.contains_key("wire"),
        "ARCHITECTURE.md has no table of rooms"
    );
    let all: BTreeSet<String> = table
        .keys()
        .cloned()
        .chain(CRATES.map(str::to_owned))
        .collect();
    let rooms: BTreeSet<String> = all
        .iter()
        .filter(|name| !CRATES.contains(&name.as_str()))
        .cloned()
        .collect();
    let mut allowed: BTreeMap<String, BTreeSet<String>> = table
        .iter()
        .map(|(room, (names, words))| match words.as_str() {
            "all of `broker`" => (
                room.clone(),
                rooms.iter().cloned().chain(["wire".to_owned()]).collect(),
            ),
            words if words.starts_with("all") => (room.clone(), all.clone()),
            _ => (room.clone(), names.intersection(&all).cloned().collect()),
        })
        .collect();
    // What a room of the broker may, the broker may.
    let broker = rooms
        .iter()
        .flat_map(|room| allowed[room].clone())
        .filter(|name| !rooms.contains(name))
        .collect();
    allowed.insert("broker".to_owned(), broker);
    for _ in 0..allowed.len() {
        for (name, direct) in allowed.clone() {
            let more = direct
                .iter()
                .filter_map(|to| allowed.get(to).cloned())
                .flatten();
            let more: Vec<String> = more.filter(|to| *to != name).collect();
            allowed.get_mut(&name).expect("a row").extend(more);
        }
    }
    allowed
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The names that follow `prefix` in a path: `prefix::name`, or several in braces.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let rest = &code[at + prefix.len()..];
        if before.is_alphanumeric() || before == '_' || before == ':' {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(list) => names.extend(first_names(list)),
            None => names.extend(first_name(rest)),
        }
    }
    names
}

fn first_name(text: &str) -> Option<String> {
    let name: String = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty() && name != "super").then_some(name)
}

/// The first names of the paths in a list that begins after its brace.
fn first_names(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.extend(first_name(list[start..i].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.extend(first_name(list[start..i].trim_start()));
                start = i + 1;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn imports_follow_the_table() {
    let allowed = allowed();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for source in sources().iter().filter(|source| !source.test) {
        let code = source.code();
        let krate = source.path.split('/').next().unwrap_or_default().to_owned();
        let of_crates = CRATES
            .iter()
            .filter(|name| code.contains(&format!("corelane_{name}")));
        for to in of_crates.filter(|name| **name != krate) {
            seen += 1;
            if !allowed[&krate].contains(*to) {
                wrong.push(format!("{}: {krate} may not import {to}", source.path));
            }
        }
        let Some(room) = source.room() else { continue };
        let mut to_rooms = names_after(&code, "crate::");
        to_rooms.extend(names_after(&code, &"super::".repeat(source.depth())));
        for to in to_rooms
            .iter()
            .filter(|to| *to != room && allowed.contains_key(*to))
        {
            seen += 1;
            if !allowed[room].contains(to) {
                wrong.push(format!("{}: {room} may not import {to}", source.path));
            }
        }
    }
    assert!(seen > 20, "only {seen} imports were seen");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn dependencies_follow_the_table() {
    let allowed = allowed();
    for krate in CRATES {
        let manifest =
            fs::read_to_string(workspace().join(krate).join("Cargo.toml")).expect("a manifest");
        for to in CRATES {
            let depends = manifest
                .lines()
                .any(|line| line.starts_with(&format!("corelane-{to}")));
            assert!(
                !depends || allowed[krate].contains(to),
                "{krate}/Cargo.toml: {krate} may not depend on {to}"
            );
        }
    }
}

#[test]
fn pure_rooms_do_no_io() {
    let mut wrong = Vec::new();
    let pure = |source: &&Source| {
        let path = source.path.as_str();
        !source.test && !NOT_PURE.contains(&path) && PURE.iter().any(|room| path.starts_with(room))
    };
    for source in sources().iter().filter(pure) {
        let code = source.code();
        let words = IMPURE.iter().filter(|word| code.contains(*word));
        wrong.extend(words.map(|word| format!("{}: {word}", source.path)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let outside =
        |source: &&Source| !source.test && !UNSAFE.iter().any(|room| source.path.starts_with(room));
    for source in sources().iter().filter(outside) {
        let code = source.code();
        let word = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
            .iter()
            .find(|word| code.contains(**word));
        assert!(word.is_none(), "{}: unsafe outside its rooms", source.path);
    }
}

#[test]
fn files_are_short_and_open_with_their_contract() {
    let sources = sources();
    let long = sources
        .iter()
        .map(|source| (source, source.text.lines().count()))
        .filter(|(_, n)| *n > LINES_AT_MOST);
    let mut wrong: Vec<String> = long
        .map(|(source, lines)| format!("{}: {lines} lines", source.path))
        .collect();
    let silent = sources
        .iter()
        .filter(|source| !source.test && !source.text.starts_with("//!"));
    wrong.extend(silent.map(|source| format!("{}: no contract", source.path)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_say_something() {
    let empty = [
        "util", "utils", "helper", "helpers", "manager", "common", "misc",
    ];
    for source in sources() {
        let name = source
            .path
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs")
            .to_owned();
        assert!(
            !empty.contains(&name.as_str()),
            "{}: a name that says nothing",
            source.path
        );
        for word in source.code().split(|c: char| !c.is_alphanumeric()) {
            let ends = ["Impl", "Manager", "Helper", "Utils"]
                .iter()
                .find(|end| word.len() > end.len() && word.ends_with(**end));
            // The names of Apache's own classes in tests with its clients are theirs.
            assert!(
                ends.is_none() || source.path.starts_with("tests/"),
                "{}: {word}",
                source.path
            );
        }
    }
}

/// Paths of somebody's machine, this one's among them, lead nowhere elsewhere.
#[test]
fn nothing_names_a_machine() {
    let root = workspace();
    let mut paths: Vec<String> = ["home", "root", "Users", "tmp"]
        .map(|dir| format!("/{dir}/"))
        .to_vec();
    paths.extend(
        root.parent()
            .filter(|dir| dir.components().count() > 1)
            .map(|dir| format!("{}/", dir.display())),
    );
    let mut wrong = Vec::new();
    for (name, file) in files(&root) {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for path in &paths {
                // The beginning of a path, not its middle.
                let begins = |at: usize| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-~}$*".contains(c))
                };
                if line.match_indices(path.as_str()).any(|(at, _)| begins(at)) {
                    wrong.push(format!("{name}:{}: {path}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
