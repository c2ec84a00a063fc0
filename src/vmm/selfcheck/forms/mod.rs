//! The forms under test.

mod control;
mod faults;
mod integer;
mod string;
mod system;
mod vector;

use super::form::Form;

/// All of them.
pub fn all() -> Vec<Form> {
    [
        integer::moves(),
        integer::arithmetic(),
        integer::bits(),
        string::forms(),
        control::forms(),
        vector::forms(),
        system::forms(),
        faults::forms(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_form_assembles_under_a_name_of_its_own() {
        let forms = all();
        let names: BTreeSet<_> = forms.iter().map(|form| form.name).collect();
        assert_eq!(names.len(), forms.len());
        assert!(forms.len() >= 150, "{}", forms.len());
        for (index, form) in forms.iter().enumerate() {
            form.assemble(index).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn flags_left_undefined_are_not_compared() {
        let undefined = |name: &str| all().iter().find(|form| form.name == name).unwrap().assemble(0).unwrap().undefined;
        assert_eq!(undefined("add m64, r64"), 0);
        assert_eq!(undefined("and r64, m64"), 1 << 4);
        assert_ne!(undefined("div m64") & 1, 0);
    }
}
