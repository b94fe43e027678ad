//! A module can say the same in many ways. This is the way in which gzip finds most again: functions stand by those that are
//! alike, the locals of each are numbered by how often they are used, and no access to memory has a hint of its own.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashSet},
    convert::Infallible,
};
use wasm_encoder::{
    CodeSection, Function, FunctionSection, Instruction, MemArg,
    reencode::{self, Reencode, utils},
};
use wasmparser::{CodeSectionReader, FunctionBody, FunctionSectionReader, Operator, Parser, Payload};

use crate::Result;

/// As many bytes in a row count as seen before: less than that is hardly ever worth a reference.
const RUN: usize = 4;

/// How far back is looked for them. gzip looks further, and references to what is near are shorter.
const NEAR: usize = 4_000;

/// The module with its functions, locals and hints arranged. It does what it did.
pub(super) fn arrange(module: &[u8]) -> Result<Vec<u8>> {
    let mut arrange = Arrange::read(module)?;
    let mut written = Vec::new();
    for function in 0..arrange.bodies.len() {
        written.push(arrange.write(function)?.into_raw_body());
    }
    arrange.order = order(&written);
    for (place, function) in (0..).zip(&arrange.order) {
        arrange.places[*function] = place;
    }
    let mut arranged = wasm_encoder::Module::new();
    arrange.parse_core_module(&mut arranged, Parser::new(0), module)?;
    Ok(arranged.finish())
}

/// Each function by what of it has been seen in those just before: the one of which most has comes next. The largest begins.
fn order(functions: &[Vec<u8>]) -> Vec<usize> {
    let runs: Vec<BTreeSet<&[u8]>> = functions.iter().map(|function| function.windows(RUN).collect()).collect();
    let mut left: Vec<usize> = (0..functions.len()).collect();
    let mut order = Vec::new();
    let mut before: Vec<u8> = Vec::new();
    while !left.is_empty() {
        let near: HashSet<&[u8]> = before[before.len().saturating_sub(NEAR)..].windows(RUN).collect();
        let of_a_million = |function: usize| {
            let seen = runs[function].iter().filter(|run| near.contains(**run)).count();
            seen * 1_000_000 / (runs[function].len() + 1)
        };
        let next = left.iter().enumerate().max_by_key(|(_, function)| {
            let size = if order.is_empty() { functions[**function].len() } else { 0 };
            (size, of_a_million(**function), Reverse(**function))
        });
        let Some((at, _)) = next else { break };
        let function = left.remove(at);
        before.extend_from_slice(&functions[function]);
        order.push(function);
    }
    order
}

struct Arrange<'a> {
    /// How many parameters the functions of each type have.
    parameters: Vec<u32>,
    /// The type of each function.
    types: Vec<u32>,
    bodies: Vec<FunctionBody<'a>>,
    /// The functions in the order in which they are written.
    order: Vec<usize>,
    /// Where each is written.
    places: Vec<u32>,
    /// What is now the number of each local of the function that is being written.
    locals: Vec<u32>,
}

impl<'a> Arrange<'a> {
    fn read(module: &'a [u8]) -> Result<Self> {
        let (mut parameters, mut types, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(_) => return Err("the module imports something: it may import nothing".into()),
                Payload::TypeSection(section) => {
                    for kind in section.into_iter_err_on_gc_types() {
                        parameters.push(u32::try_from(kind?.params().len())?);
                    }
                }
                Payload::FunctionSection(section) => {
                    types = section.into_iter().collect::<std::result::Result<_, _>>()?
                }
                Payload::CodeSectionEntry(body) => bodies.push(body),
                _ => {}
            }
        }
        let places = (0..).take(bodies.len()).collect();
        Ok(Self { parameters, types, order: (0..bodies.len()).collect(), bodies, places, locals: Vec::new() })
    }

    /// A function with its locals numbered anew. What it calls has its number in [`Self::places`].
    fn write(&mut self, function: usize) -> std::result::Result<Function, reencode::Error<Infallible>> {
        let body = self.bodies[function].clone();
        let parameters = self.parameters[self.types[function] as usize];
        let mut kinds = Vec::new();
        for run in body.get_locals_reader()? {
            let (count, kind) = run?;
            kinds.extend((0..count).map(|_| kind));
        }
        let mut uses = vec![0_usize; kinds.len()];
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            if let Operator::LocalGet { local_index }
            | Operator::LocalSet { local_index }
            | Operator::LocalTee { local_index } = reader.read()?
                && let Some(at) = local_index.checked_sub(parameters)
            {
                uses[at as usize] += 1;
            }
        }
        // Those of a type stay together, since a function says how many there are of each.
        let mut sorted: Vec<usize> = (0..kinds.len()).collect();
        sorted.sort_by_key(|local| (kinds.iter().position(|kind| *kind == kinds[*local]), Reverse(uses[*local])));
        self.locals = (0..parameters).collect();
        self.locals.resize(parameters as usize + kinds.len(), 0);
        for (number, local) in (parameters..).zip(&sorted) {
            self.locals[parameters as usize + local] = number;
        }
        let mut kinds_now = Vec::new();
        for local in sorted {
            kinds_now.push(self.val_type(kinds[local])?);
        }
        let mut written = Function::new_with_locals_types(kinds_now);
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            written.instruction(&self.parse_instruction(&mut reader)?);
        }
        Ok(written)
    }
}

impl Reencode for Arrange<'_> {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> std::result::Result<u32, reencode::Error<Infallible>> {
        Ok(self.places[function as usize])
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        _: FunctionSectionReader<'_>,
    ) -> std::result::Result<(), reencode::Error<Infallible>> {
        for function in &self.order {
            functions.function(self.types[*function]);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        _: CodeSectionReader<'_>,
    ) -> std::result::Result<(), reencode::Error<Infallible>> {
        for function in self.order.clone() {
            code.function(&self.write(function)?);
        }
        Ok(())
    }

    fn instruction<'b>(
        &mut self,
        operator: Operator<'b>,
    ) -> std::result::Result<Instruction<'b>, reencode::Error<Infallible>> {
        Ok(match operator {
            Operator::LocalGet { local_index } => Instruction::LocalGet(self.locals[local_index as usize]),
            Operator::LocalSet { local_index } => Instruction::LocalSet(self.locals[local_index as usize]),
            Operator::LocalTee { local_index } => Instruction::LocalTee(self.locals[local_index as usize]),
            other => utils::instruction(self, other)?,
        })
    }

    fn mem_arg(&mut self, access: wasmparser::MemArg) -> std::result::Result<MemArg, reencode::Error<Infallible>> {
        // A hint, which no engine of the bindings needs.
        Ok(MemArg { align: 0, ..utils::mem_arg(self, access)? })
    }
}
