//! Where a source file can be changed, and into what: the kinds of changes cargo-mutants makes.

use super::values;
use proc_macro2::Span;
use std::collections::BTreeSet;
use std::ops::Range;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, BinOp, Block, Expr, File, ItemFn, ItemImpl, ItemMod, ItemTrait, Pat, Signature, UnOp};

/// One change of a file, to be made or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Line of the file, from 1.
    pub line: usize,
    /// `Type::function`.
    pub function: String,
    /// What is replaced with what.
    pub what: String,
    /// The text that takes the place of the original.
    pub text: String,
}

/// A place of a file with its changes.
#[derive(Clone, Debug)]
pub struct Site {
    /// Bytes of the file the changes stand for.
    pub range: Range<usize>,
    pub kind: Kind,
    pub changes: Vec<Change>,
}

/// How a site is written so that its changes can be turned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An expression: chosen from the changes and the original.
    Expression,
    /// A function's body, inside its braces: returns early.
    Body,
    /// A match arm without a guard, at the end of its pattern: gets a guard that refuses.
    Arm,
    /// The word `const` of a function, which is left out: a constant function cannot ask whether a change is on.
    Constant,
}

/// The sites of a file. Functions named in `constant` stay `const` and unchanged.
pub fn sites(source: &str, constant: &BTreeSet<String>) -> Result<Vec<Site>, String> {
    let file: File = syn::parse_file(source).map_err(|e| format!("line {}: {e}", e.span().start().line))?;
    let mut finder = Finder { source, constant, names: Vec::new(), sites: Vec::new(), inside: false };
    finder.visit_file(&file);
    Ok(finder.sites)
}

struct Finder<'a> {
    source: &'a str,
    constant: &'a BTreeSet<String>,
    names: Vec<String>,
    sites: Vec<Site>,
    /// In a function whose code runs at run time.
    inside: bool,
}

impl Finder<'_> {
    fn text(&self, span: Span) -> &str {
        self.source.get(span.byte_range()).unwrap_or_default()
    }

    fn change(&self, span: Span, what: String, text: String) -> Change {
        Change { line: span.start().line, function: self.names.join("::"), what, text }
    }

    fn add(&mut self, range: Range<usize>, kind: Kind, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.sites.push(Site { range, kind, changes });
        }
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        self.names.push(signature.ident.to_string());
        let before = self.inside;
        self.inside = true;
        if let Some(word) = &signature.constness {
            let name = self.names.join("::");
            self.inside = !self.constant.contains(&name);
            if self.inside {
                self.sites.push(Site { range: word.span().byte_range(), kind: Kind::Constant, changes: Vec::new() });
            }
        }
        if self.inside {
            self.body(signature, block);
            visit::visit_block(self, block);
        }
        self.inside = before;
        self.names.pop();
    }

    fn body(&mut self, signature: &Signature, block: &Block) {
        let (open, close) = (block.brace_token.span.open().byte_range().end, block.brace_token.span.close().byte_range().start);
        let original: String = self.source.get(open..close).unwrap_or_default().split_whitespace().collect();
        if original.is_empty() {
            return;
        }
        let same = |value: &str| value.split_whitespace().collect::<String>() == original;
        let mut changes = Vec::new();
        for value in values::of(&signature.output) {
            if !same(&value) {
                changes.push(self.change(signature.ident.span(), format!("replace the body with {value}"), value));
            }
        }
        self.add(open..close, Kind::Body, changes);
    }

    fn binary(&mut self, e: &syn::ExprBinary) {
        if holds_let(&e.left) || holds_let(&e.right) {
            return;
        }
        let (left, right, old) = (self.text(e.left.span()), self.text(e.right.span()), self.text(e.op.span()));
        let changes = others(&e.op)
            .iter()
            .map(|new| {
                // A place keeps its bare form; an operand may bind looser than the new operator.
                let text = if new.ends_with('=') && !matches!(*new, "==" | "!=" | "<=" | ">=") {
                    format!("{left} {new} {right}")
                } else {
                    format!("({left}) {new} ({right})")
                };
                self.change(e.op.span(), format!("replace {old} with {new}"), text)
            })
            .collect();
        self.add(e.span().byte_range(), Kind::Expression, changes);
    }

    fn unary(&mut self, e: &syn::ExprUnary) {
        let sign = match e.op {
            UnOp::Not(_) => "!",
            UnOp::Neg(_) => "-",
            _ => return,
        };
        let change = self.change(e.span(), format!("delete {sign}"), self.text(e.expr.span()).to_owned());
        self.add(e.span().byte_range(), Kind::Expression, vec![change]);
    }

    fn arms(&mut self, e: &syn::ExprMatch) {
        let last = e.arms.iter().any(|arm| matches!(arm.pat, Pat::Wild(_)));
        for arm in &e.arms {
            match &arm.pat {
                Pat::Guard(pat) if !holds_let(&pat.guard) => {
                    let guard = pat.guard.span();
                    let old = words(self.text(guard));
                    let changes =
                        ["true", "false"].map(|new| self.change(guard, format!("replace the guard {old} with {new}"), new.to_owned()));
                    self.add(guard.byte_range(), Kind::Expression, changes.into());
                }
                Pat::Guard(_) | Pat::Wild(_) => {}
                pat if last => {
                    let what = format!("delete the match arm {}", words(self.text(pat.span())));
                    let end = pat.span().byte_range().end;
                    let change = self.change(pat.span(), what, String::new());
                    self.add(end..end, Kind::Arm, vec![change]);
                }
                _ => {}
            }
        }
    }
}

/// The words of a text with one blank between them.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl<'a> Visit<'a> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if !excluded(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'a ItemImpl) {
        let printed = |name: &str| name == "Debug" || name == "Display";
        let shown = item.trait_.as_ref().and_then(|t| t.0.segments.last()).is_some_and(|s| printed(&s.ident.to_string()));
        if excluded(&item.attrs) || shown {
            return;
        }
        let name = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
            _ => None,
        };
        self.names.push(name.unwrap_or_else(|| self.text(item.self_ty.span()).to_owned()));
        visit::visit_item_impl(self, item);
        self.names.pop();
    }

    fn visit_item_trait(&mut self, item: &'a ItemTrait) {
        self.names.push(item.ident.to_string());
        visit::visit_item_trait(self, item);
        self.names.pop();
    }

    fn visit_item_fn(&mut self, item: &'a ItemFn) {
        if !excluded(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if !excluded(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let (false, Some(block)) = (excluded(&item.attrs), &item.default) {
            self.function(&item.sig, block);
        }
    }

    fn visit_expr(&mut self, e: &'a Expr) {
        match e {
            Expr::Binary(e) if self.inside => self.binary(e),
            Expr::Unary(e) if self.inside => self.unary(e),
            Expr::Match(e) if self.inside => self.arms(e),
            Expr::Const(_) => return,
            // The length is a constant.
            Expr::Repeat(e) => return self.visit_expr(&e.expr),
            _ => {}
        }
        visit::visit_expr(self, e);
    }

    fn visit_pat(&mut self, pat: &'a Pat) {
        if let Pat::Guard(pat) = pat {
            self.visit_expr(&pat.guard);
        }
    }

    // Constants, and places that hold only constants.
    fn visit_item_const(&mut self, _: &'a syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'a syn::ItemStatic) {}
    fn visit_item_enum(&mut self, _: &'a syn::ItemEnum) {}
    fn visit_impl_item_const(&mut self, _: &'a syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'a syn::TraitItemConst) {}
    fn visit_type(&mut self, _: &'a syn::Type) {}
    fn visit_attribute(&mut self, _: &'a Attribute) {}
    fn visit_generic_argument(&mut self, _: &'a syn::GenericArgument) {}
}

/// Tests are not what is tested.
fn excluded(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| match &attr.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        meta => meta.path().is_ident("test"),
    })
}

/// A chain with `let` cannot be put into a block of its own.
fn holds_let(e: &Expr) -> bool {
    match e {
        Expr::Let(_) => true,
        Expr::Binary(e) => matches!(e.op, BinOp::And(_)) && (holds_let(&e.left) || holds_let(&e.right)),
        _ => false,
    }
}

/// What an operator is replaced with.
fn others(op: &BinOp) -> &'static [&'static str] {
    match op {
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::Lt(_) => &["==", ">", "<="],
        BinOp::Gt(_) => &["==", "<", ">="],
        BinOp::Le(_) => &[">", "<"],
        BinOp::Ge(_) => &["<", ">"],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Add(_) => &["-", "*"],
        BinOp::Sub(_) => &["+", "/"],
        BinOp::Mul(_) => &["+", "/"],
        BinOp::Div(_) => &["%", "*"],
        BinOp::Rem(_) => &["/", "+"],
        BinOp::Shl(_) => &[">>"],
        BinOp::Shr(_) => &["<<"],
        BinOp::BitAnd(_) => &["|", "^"],
        BinOp::BitOr(_) => &["&", "^"],
        BinOp::BitXor(_) => &["|", "&"],
        BinOp::AddAssign(_) => &["-=", "*="],
        BinOp::SubAssign(_) => &["+=", "/="],
        BinOp::MulAssign(_) => &["+=", "/="],
        BinOp::DivAssign(_) => &["%=", "*="],
        BinOp::RemAssign(_) => &["/=", "+="],
        BinOp::ShlAssign(_) => &[">>="],
        BinOp::ShrAssign(_) => &["<<="],
        BinOp::BitAndAssign(_) => &["|=", "^="],
        BinOp::BitOrAssign(_) => &["&=", "^="],
        BinOp::BitXorAssign(_) => &["|=", "&="],
        _ => &[],
    }
}
