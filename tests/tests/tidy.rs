//! The habits that a machine can check, checked. The reasons are in CONTRIBUTING.md.

use minikafka_tests::source::{self, SourceFile};

/// Functions fit on a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// Files tell one story.
const FILE_LINES_MAX: usize = 900;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 9] = ["util", "utils", "helper", "helpers", "common", "misc", "impls", "manager", "types"];

/// Runs `check` over every file and fails with all that it found, one line each.
fn hold(what: &str, check: impl Fn(&SourceFile) -> Vec<(usize, String)>) {
    let files = source::all();
    assert!(files.len() > 20, "only {} Rust files found: the scan looks in the wrong place", files.len());
    let found: Vec<String> = files
        .iter()
        .flat_map(|file| check(file).into_iter().map(move |(line, text)| format!("{}:{line}: {text}", file.path)))
        .collect();
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

fn long_functions(file: &SourceFile) -> Vec<(usize, String)> {
    let long = file.functions().into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
    long.map(|function| (function.line, format!("{} has {} lines", function.name, function.lines))).collect()
}

fn long_file(file: &SourceFile) -> Vec<(usize, String)> {
    let lines = file.text.lines().count();
    if lines > FILE_LINES_MAX { vec![(lines, format!("{lines} lines"))] } else { Vec::new() }
}

fn empty_name(file: &SourceFile) -> Vec<(usize, String)> {
    let parts = file.path.trim_end_matches(".rs").split('/');
    parts.filter(|part| EMPTY_NAMES.contains(part)).map(|part| (1, format!("a module called {part}"))).collect()
}

fn unfinished(file: &SourceFile) -> Vec<(usize, String)> {
    let words = ["todo!", "unimplemented!", "dbg!"];
    words.iter().flat_map(|word| file.find(word).into_iter().map(|at| (file.line_of(at), word.to_string()))).collect()
}

fn headless(file: &SourceFile) -> Vec<(usize, String)> {
    let first = file.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    let told = first.is_some_and(|line| line.starts_with("//! ") && line.len() > 8);
    if told { Vec::new() } else { vec![(1, "no //! header that says what this is for".into())] }
}

/// `unwrap` says nothing, and an `expect` must say why it holds: a sentence, not a word.
fn unreasoned(file: &SourceFile) -> Vec<(usize, String)> {
    if file.is_test() {
        return Vec::new();
    }
    let tests = file.test_regions();
    let outside = |at: &usize| !tests.iter().any(|region| region.contains(at));
    let unwraps = file.find(".unwrap()").into_iter().filter(outside).map(|at| (at, ".unwrap() without a reason"));
    let expects = file.find(".expect(").into_iter().filter(outside).filter(|&at| !has_reason(file, at));
    let expects = expects.map(|at| (at, ".expect() without a sentence that says why it holds"));
    unwraps.chain(expects).map(|(at, text)| (file.line_of(at), text.to_owned())).collect()
}

fn has_reason(file: &SourceFile, at: usize) -> bool {
    let argument = file.code_with_literals[at + ".expect(".len()..].trim_start();
    if !argument.starts_with('"') {
        // Not a message: a method of that name that takes something else (a parser's `expect(token)`).
        return true;
    }
    argument[1..].split('"').next().is_some_and(|reason| reason.split_whitespace().count() >= 3)
}

#[test]
fn functions_fit_on_a_screen() {
    hold("functions over 70 lines: split them", long_functions);
}

#[test]
fn files_tell_one_story() {
    hold("files over 900 lines: split them", long_file);
}

#[test]
fn names_say_what_is_inside() {
    hold("modules whose name says nothing", empty_name);
}

#[test]
fn nothing_is_left_unfinished() {
    hold("left unfinished", unfinished);
}

#[test]
fn every_module_says_what_it_is_for() {
    hold("modules without a header", headless);
}

#[test]
fn panics_have_reasons() {
    hold("outside tests, return a typed error or say why it cannot happen", unreasoned);
}

/// Each habit is seen to fail on a planted offence: a check that cannot fail is a defect.
#[test]
fn planted_offences_are_found() {
    let found = |check: fn(&SourceFile) -> Vec<(usize, String)>, path: &str, text: &str| {
        check(&SourceFile::new(path, text)).into_iter().map(|(line, _)| line).collect::<Vec<_>>()
    };
    let long = format!("//! Long.\nfn long() {{\n{}}}\n", "    work();\n".repeat(FUNCTION_LINES_MAX - 1));
    assert_eq!(found(long_functions, "a/src/a.rs", &long), [2]);
    assert_eq!(found(long_functions, "a/src/a.rs", &long.replacen("    work();\n", "", 1)), [0usize; 0]);
    assert_eq!(found(long_file, "a/src/a.rs", &"\n".repeat(901)), [901]);
    assert_eq!(found(empty_name, "a/src/utils.rs", ""), [1]);
    assert_eq!(found(empty_name, "a/src/common/x.rs", ""), [1]);
    assert_eq!(found(unfinished, "a/src/a.rs", "fn a() {\n todo!() }"), [2]);
    assert_eq!(found(headless, "a/src/a.rs", "use x;\n//! Too late."), [1]);
    assert_eq!(found(unreasoned, "a/src/a.rs", "fn a() {\n b.unwrap(); }"), [2]);
    assert_eq!(found(unreasoned, "a/src/a.rs", "fn a() {\n b.expect(\"ok\"); }"), [2]);
    assert_eq!(found(unreasoned, "a/src/a.rs", "fn a() { b.expect(\"taken just above\"); }"), [0usize; 0]);
    assert_eq!(found(unreasoned, "a/src/a.rs", "#[cfg(test)]\nmod tests { fn a() { b.unwrap(); } }"), [0usize; 0]);
}
