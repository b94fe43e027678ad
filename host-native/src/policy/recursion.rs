//! Functions that call themselves are refused before a call is evaluated.
//!
//! Rego forbids recursion. The evaluator notices when a rule needs itself, but not when a function does: it would use up
//! the stack, and that ends the process. So the text of every function is searched for names of functions. The search reads a
//! local variable as a function of the same name, so it refuses a little too much, never too little.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use regorus::{
    Engine, Source,
    unstable::{Expr, Lexer, Module, Rule, RuleHead, Span, Token, TokenKind},
};

use super::{Error, limits, syntax};

/// Full path of a function, as components: `data`, package, name.
type Path = Vec<String>;
type Calls = BTreeMap<Path, BTreeSet<Path>>;

/// Refuses functions that reach themselves, or others through too many steps.
pub(super) fn refuse(engine: &mut Engine) -> Result<(), Error> {
    let calls = calls(engine).map_err(syntax)?;
    let mut depths = BTreeMap::new();
    for function in calls.keys() {
        depth(function, &calls, &mut depths, 0)?;
    }
    Ok(())
}

/// How many calls deep `function` goes; `None` while that is being found out.
fn depth(
    function: &Path,
    calls: &Calls,
    depths: &mut BTreeMap<Path, Option<usize>>,
    above: usize,
) -> Result<usize, Error> {
    match depths.get(function) {
        Some(Some(depth)) => return Ok(*depth),
        Some(None) => return Err(Error::Recursion(function.join("."))),
        None if above > limits::CALL_DEPTH => return Err(too_deep()),
        None => {}
    }
    depths.insert(function.clone(), None);
    let mut deepest = 0;
    for callee in calls.get(function).into_iter().flatten() {
        deepest = deepest.max(depth(callee, calls, depths, above.saturating_add(1))?);
    }
    let depth = deepest.saturating_add(1);
    if depth > limits::CALL_DEPTH {
        return Err(too_deep());
    }
    depths.insert(function.clone(), Some(depth));
    Ok(depth)
}

fn too_deep() -> Error {
    Error::TooLarge { what: "policy".to_owned(), max: limits::CALL_DEPTH, unit: "functions that call one another" }
}

fn calls(engine: &mut Engine) -> Result<Calls> {
    let modules = engine.get_modules().iter().map(|module| Scan::new(module)).collect::<Result<Vec<_>>>()?;
    let mut functions = Calls::new();
    for module in &modules {
        functions.extend(module.functions.iter().map(|(function, _)| (function.clone(), BTreeSet::new())));
    }
    let names: BTreeSet<Path> = functions.keys().cloned().collect();
    for module in modules {
        for (function, span) in &module.functions {
            // The first occurrence is the head, which is no call.
            let mentioned = module.paths(span).skip(1).map(|path| resolve(path, &module.package, &module.aliases));
            functions.entry(function.clone()).or_default().extend(mentioned.filter(|path| names.contains(path)));
        }
    }
    Ok(functions)
}

/// What a module is searched for.
struct Scan {
    package: Path,
    aliases: BTreeMap<String, Path>,
    /// A function with several definitions comes several times.
    functions: Vec<(Path, Span)>,
    /// Every `a.b["c"]` of the text, with its place.
    paths: Vec<(u32, Path)>,
}

impl Scan {
    fn new(module: &Module) -> Result<Self> {
        let paths = paths(&module.package.span.source)?;
        let mut scan = Self { package: Vec::new(), aliases: BTreeMap::new(), functions: Vec::new(), paths };
        scan.package.push("data".to_owned());
        scan.package.extend(scan.path_of(&module.package.refr));
        for import in &module.imports {
            let path = scan.path_of(&import.refr);
            let alias = import.r#as.as_ref().map(|span| span.text().to_owned()).or_else(|| path.last().cloned());
            scan.aliases.extend(alias.map(|alias| (alias, path)));
        }
        for rule in &module.policy {
            if let Rule::Spec { span, head: RuleHead::Func { refr, .. }, .. } = rule.as_ref() {
                let path = scan.package.iter().cloned().chain(scan.path_of(refr)).collect();
                scan.functions.push((path, span.clone()));
            }
        }
        Ok(scan)
    }

    fn paths(&self, span: &Span) -> impl Iterator<Item = &Path> {
        let first = self.paths.partition_point(|(start, _)| *start < span.start);
        self.paths.iter().skip(first).take_while(|(start, _)| *start < span.end).map(|(_, path)| path)
    }

    fn path_of(&self, refr: &Expr) -> Path {
        self.paths(refr.span()).next().cloned().unwrap_or_default()
    }
}

fn resolve(path: &Path, package: &Path, aliases: &BTreeMap<String, Path>) -> Path {
    match path.split_first() {
        Some((first, _)) if first == "data" => path.clone(),
        Some((first, rest)) => match aliases.get(first) {
            Some(target) => target.iter().chain(rest).cloned().collect(),
            None => package.iter().chain(path).cloned().collect(),
        },
        None => package.clone(),
    }
}

/// Every `a.b["c"]` in a text, as components, with the place where it starts.
fn paths(source: &Source) -> Result<Vec<(u32, Path)>> {
    let mut lexer = Lexer::new(source);
    let mut tokens = Vec::new();
    loop {
        let Token(kind, span) = lexer.next_token()?;
        if kind == TokenKind::Eof {
            break;
        }
        tokens.push((kind, span));
    }
    let mut paths = Vec::new();
    let mut rest = tokens.as_slice();
    while let Some(((kind, span), after)) = rest.split_first() {
        rest = after;
        if *kind != TokenKind::Ident {
            continue;
        }
        let mut path = vec![span.text().to_owned()];
        loop {
            match rest {
                [(TokenKind::Symbol, dot), (TokenKind::Ident, name), after @ ..] if dot.text() == "." => {
                    path.push(name.text().to_owned());
                    rest = after;
                }
                [(_, open), (TokenKind::String | TokenKind::RawString, text), (_, close), after @ ..]
                    if open.text() == "[" && close.text() == "]" =>
                {
                    path.push(text.text().to_owned());
                    rest = after;
                }
                _ => break,
            }
        }
        paths.push((span.start, path));
    }
    Ok(paths)
}
