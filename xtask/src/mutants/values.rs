//! Values a function's body is replaced with, by its return type.

use syn::{GenericArgument, PathArguments, ReturnType, Type};

/// No function gets more replacements than this.
const MOST: usize = 8;

/// Expressions for a function's result; none where nothing but its own body will do.
pub fn of(output: &ReturnType) -> Vec<String> {
    let mut values = match output {
        ReturnType::Default => vec!["()".to_owned()],
        ReturnType::Type(_, ty) => of_type(ty),
    };
    values.truncate(MOST);
    values
}

fn of_type(ty: &Type) -> Vec<String> {
    match ty {
        Type::Tuple(tuple) => {
            let mut all = vec![String::new()];
            for part in &tuple.elems {
                let values = of_type(part);
                all = all.iter().flat_map(|head| values.iter().map(move |value| format!("{head}{value}, "))).collect();
            }
            all.into_iter().map(|inner| format!("({})", inner.trim_end())).collect::<Vec<_>>()
        }
        Type::Paren(inner) => of_type(&inner.elem),
        Type::Group(inner) => of_type(&inner.elem),
        Type::Array(array) => of_type(&array.elem).iter().map(|value| format!("std::array::from_fn(|_| {value})")).collect(),
        Type::Reference(reference) => of_reference(reference),
        Type::Path(path) => path.path.segments.last().map(of_path).unwrap_or_default(),
        // `impl Trait` has one type only, that of the body; a function of type `!` does not return.
        _ => Vec::new(),
    }
}

fn of_reference(reference: &syn::TypeReference) -> Vec<String> {
    match &*reference.elem {
        Type::Slice(slice) => {
            let mut values = vec!["Vec::leak(Vec::new())".to_owned()];
            values.extend(of_type(&slice.elem).iter().map(|value| format!("Vec::leak(vec![{value}])")));
            values
        }
        Type::Path(path) if path.path.is_ident("str") => vec!["\"\"".to_owned(), "\"xyzzy\"".to_owned()],
        elem => of_type(elem).iter().map(|value| format!("Box::leak(Box::new({value}))")).collect(),
    }
}

fn of_path(segment: &syn::PathSegment) -> Vec<String> {
    let inner: Vec<&Type> = match &segment.arguments {
        PathArguments::AngleBracketed(list) => {
            let types = list.args.iter().filter_map(|arg| if let GenericArgument::Type(ty) = arg { Some(ty) } else { None });
            types.collect()
        }
        _ => Vec::new(),
    };
    let wrapped = |wrap: &str| -> Vec<String> {
        inner.first().map(|ty| of_type(ty)).unwrap_or_default().iter().map(|value| format!("{wrap}({value})")).collect()
    };
    let strings = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let name = segment.ident.to_string();
    match name.as_str() {
        "bool" => strings(&["true", "false"]),
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => strings(&["0", "1"]),
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => strings(&["0", "1", "-1"]),
        "f32" | "f64" => strings(&["0.0", "1.0", "-1.0"]),
        "String" => strings(&["String::new()", "\"xyzzy\".into()"]),
        "Option" => strings(&["None"]).into_iter().chain(wrapped("Some")).collect(),
        "Result" => wrapped("Ok"),
        "Box" | "Arc" | "Rc" | "Cell" | "RefCell" | "Mutex" => wrapped(&format!("{name}::new")),
        "Vec" => {
            let one = inner.first().map(|ty| of_type(ty)).unwrap_or_default();
            strings(&["vec![]"]).into_iter().chain(one.iter().map(|value| format!("vec![{value}]"))).collect()
        }
        "BTreeMap" | "BTreeSet" | "HashMap" | "HashSet" | "VecDeque" => vec![format!("{name}::new()")],
        _ => strings(&["Default::default()"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(ty: &str) -> Vec<String> {
        of(&syn::parse_str(&format!("-> {ty}")).unwrap())
    }

    #[test]
    fn values_follow_the_type() {
        assert_eq!(of(&ReturnType::Default), ["()"]);
        assert_eq!(values("bool"), ["true", "false"]);
        assert_eq!(values("io::Result<Option<u32>>"), ["Ok(None)", "Ok(Some(0))", "Ok(Some(1))"]);
        assert_eq!(values("Result<(), Error>"), ["Ok(())"]);
        assert_eq!(values("(u8, bool)"), ["(0, true,)", "(0, false,)", "(1, true,)", "(1, false,)"]);
        assert_eq!(values("Vec<i8>"), ["vec![]", "vec![0]", "vec![1]", "vec![-1]"]);
        assert_eq!(values("&[u8]"), ["Vec::leak(Vec::new())", "Vec::leak(vec![0])", "Vec::leak(vec![1])"]);
        assert_eq!(values("&'static str"), ["\"\"", "\"xyzzy\""]);
        assert_eq!(values("Thing"), ["Default::default()"]);
        assert!(values("impl Iterator<Item = u8>").is_empty());
        assert!(values("!").is_empty());
    }
}
