//! Functions that call themselves, and rules that need each other through too many steps, are refused at compile time.
//!
//! Rego forbids recursion. The evaluator notices when a rule needs itself, but not when a function does, and a long chain of
//! either uses up the stack, which ends the process. So the text of every rule is searched for names of rules. The search
//! reads a local variable as a rule of the same name, so it refuses a little too much, never too little.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use regorus::{
    Engine, Source,
    unstable::{Expr, Lexer, Module, Rule, RuleHead, Span, Token, TokenKind},
};

use super::{Error, limits, syntax};

/// Full path of a rule, as components: `data`, package, name.
type Path = Vec<String>;
/// What each rule mentions.
type Graph = BTreeMap<Path, BTreeSet<Path>>;

/// Refuses functions that reach themselves, and chains that are too long.
pub(super) fn refuse(engine: &mut Engine) -> Result<(), Error> {
    let (rules, functions) = graph(engine).map_err(syntax)?;
    let mut calls = rules.clone();
    calls.retain(|rule, mentioned| {
        mentioned.retain(|path| functions.contains(path));
        functions.contains(rule)
    });
    let mut calls = Walk { graph: &calls, depths: BTreeMap::new(), circles: Circles::Refuse };
    let mut needs = Walk { graph: &rules, depths: BTreeMap::new(), circles: Circles::LeaveToEvaluator };
    functions.iter().try_for_each(|function| calls.depth(function, 0).map(drop))?;
    rules.keys().try_for_each(|rule| needs.depth(rule, 0).map(drop))
}
/// What to do about a rule that reaches itself.
enum Circles {
    Refuse,
    /// It notices, and a local variable may only look like one.
    LeaveToEvaluator,
}

struct Walk<'a> {
    graph: &'a Graph,
    /// `None` while it is being found out.
    depths: BTreeMap<&'a Path, Option<usize>>,
    circles: Circles,
}

impl<'a> Walk<'a> {
    /// How many steps `rule` goes down; `above` is how many led to it.
    fn depth(&mut self, rule: &'a Path, above: usize) -> Result<usize, Error> {
        match (self.depths.get(rule), &self.circles) {
            (Some(Some(depth)), _) => return Ok(*depth),
            (Some(None), Circles::Refuse) => return Err(Error::Recursion(rule.join("."))),
            (Some(None), Circles::LeaveToEvaluator) => return Ok(0),
            (None, _) if above > limits::RULE_DEPTH => return Err(too_deep()),
            (None, _) => {}
        }
        self.depths.insert(rule, None);
        let mut deepest = 0;
        for needed in self.graph.get(rule).into_iter().flatten() {
            deepest = deepest.max(self.depth(needed, above.saturating_add(1))?);
        }
        let depth = deepest.saturating_add(1);
        if depth > limits::RULE_DEPTH {
            return Err(too_deep());
        }
        self.depths.insert(rule, Some(depth));
        Ok(depth)
    }
}

fn too_deep() -> Error {
    Error::TooLarge { what: "policy".to_owned(), max: limits::RULE_DEPTH, unit: "rules that need one another" }
}

/// What every rule mentions, and which rules are functions.
fn graph(engine: &mut Engine) -> Result<(Graph, BTreeSet<Path>)> {
    let modules = engine.get_modules().iter().map(|module| Scan::new(module)).collect::<Result<Vec<_>>>()?;
    let rules = || modules.iter().flat_map(|module| &module.rules);
    let functions = rules().filter(|rule| rule.is_function).map(|rule| rule.path.clone()).collect();
    let names: BTreeSet<Path> = rules().map(|rule| rule.path.clone()).collect();
    let mut graph = Graph::new();
    for module in &modules {
        for rule in &module.rules {
            let mentioned = graph.entry(rule.path.clone()).or_default();
            // The first occurrence is the head, which is no use of the rule.
            for path in module.paths(&rule.span).skip(1) {
                let path = resolve(path, &module.package, &module.aliases);
                // `rule.field` is the rule; `data.package` is all rules in it.
                let shorter = (1..=path.len()).filter_map(|n| path.get(..n)).map(<[String]>::to_vec);
                mentioned.extend(shorter.filter(|path| names.contains(path)));
                let longer = names.range::<Path, _>(&path..).take_while(|name| name.starts_with(&path));
                mentioned.extend(longer.cloned());
            }
        }
    }
    Ok((graph, functions))
}

struct Named {
    path: Path,
    span: Span,
    is_function: bool,
}

/// What a module is searched for.
struct Scan {
    package: Path,
    aliases: BTreeMap<String, Path>,
    /// A rule with several definitions comes several times.
    rules: Vec<Named>,
    /// Every `a.b["c"]` of the text, with its place.
    paths: Vec<(u32, Path)>,
}

impl Scan {
    fn new(module: &Module) -> Result<Self> {
        let paths = paths(&module.package.span.source)?;
        let mut scan = Self { package: Vec::new(), aliases: BTreeMap::new(), rules: Vec::new(), paths };
        scan.package.push("data".to_owned());
        scan.package.extend(scan.path_of(&module.package.refr));
        for import in &module.imports {
            let path = scan.path_of(&import.refr);
            let alias = import.r#as.as_ref().map(|span| span.text().to_owned()).or_else(|| path.last().cloned());
            scan.aliases.extend(alias.map(|alias| (alias, path)));
        }
        for rule in &module.policy {
            let (span, refr, is_function) = match rule.as_ref() {
                Rule::Spec { span, head: RuleHead::Func { refr, .. }, .. } => (span, refr, true),
                Rule::Spec { span, head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. }, .. } => {
                    (span, refr, false)
                }
                Rule::Default { span, refr, args, .. } => (span, refr, !args.is_empty()),
            };
            let path = scan.package.iter().cloned().chain(scan.path_of(refr)).collect();
            scan.rules.push(Named { path, span: span.clone(), is_function });
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
