//! Which names an expression's paths begin with where they look at its input: what decides whether it means the body or
//! the whole event.
//!
//! `body.type` and `$$.body.type` begin with `body`; in `items.type` and `items[type = 1]` the `type` is a name within
//! `items` and doesn't count.

use jsonata_core::ast::{AstNode, PathStep, Stage};
use std::collections::BTreeSet;

/// In their order, each once.
pub(super) fn of(ast: &AstNode) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    walk(ast, true, &mut names);
    names
}

/// `root`: the context here is the input, and not a part of it.
fn walk(node: &AstNode, root: bool, names: &mut BTreeSet<String>) {
    // As deep as the parser lets it be: the stack grows with it.
    jsonata_core::value::with_stack(|| walk_on(node, root, names));
}

fn walk_on(node: &AstNode, root: bool, names: &mut BTreeSet<String>) {
    let mut all = |nodes: &[AstNode]| {
        for node in nodes {
            walk(node, root, names);
        }
    };
    match node {
        AstNode::Name(name) => {
            if root {
                names.insert(name.clone());
            }
        }
        AstNode::Path { steps } => path(steps, root, names),
        AstNode::Binary { lhs, rhs, .. } => {
            walk(lhs, root, names);
            walk(rhs, root, names);
        }
        AstNode::Unary { operand, .. } => walk(operand, root, names),
        AstNode::Function { args, .. } => all(args),
        AstNode::Call { procedure, args } => {
            all(args);
            walk(procedure, root, names);
        }
        // Where it is written is where it looks.
        AstNode::Lambda { body, .. } => walk(body, root, names),
        AstNode::Array(nodes) | AstNode::ArrayGroup(nodes) | AstNode::Block(nodes) => all(nodes),
        AstNode::Object(pairs) => {
            for (key, value) in pairs {
                walk(key, root, names);
                walk(value, root, names);
            }
        }
        AstNode::ObjectTransform { input, pattern } => {
            walk(input, root, names);
            for (key, value) in pattern {
                walk(key, false, names);
                walk(value, false, names);
            }
        }
        AstNode::Conditional {
            condition,
            then_branch,
            else_branch,
        } => {
            walk(condition, root, names);
            walk(then_branch, root, names);
            if let Some(branch) = else_branch {
                walk(branch, root, names);
            }
        }
        AstNode::FunctionApplication(inner) => walk(inner, root, names),
        AstNode::Sort { input, terms } => {
            walk(input, root, names);
            for (term, _) in terms {
                walk(term, false, names);
            }
        }
        // `$ ~> |body|{…}|` looks for `body` in what it is given, which most often is the input.
        AstNode::Transform {
            location,
            update,
            delete,
        } => {
            walk(location, root, names);
            walk(update, false, names);
            if let Some(delete) = delete {
                walk(delete, false, names);
            }
        }
        AstNode::String(_)
        | AstNode::Number(_)
        | AstNode::Boolean(_)
        | AstNode::Null
        | AstNode::Undefined
        | AstNode::Placeholder
        | AstNode::Regex { .. }
        | AstNode::Variable(_)
        | AstNode::ParentVariable(_)
        | AstNode::Wildcard
        | AstNode::Descendant
        | AstNode::Parent(_) => {}
    }
}

fn path(steps: &[PathStep], root: bool, names: &mut BTreeSet<String>) {
    // Whether the step that comes next looks at the input: the first does where the path does, and so does one behind
    // `$$`, which is the input everywhere, or behind a `$` that stands where the input is the context.
    let mut here = root;
    for step in steps {
        walk(&step.node, here, names);
        here = match &step.node {
            AstNode::ParentVariable(name) => name.is_empty(),
            AstNode::Variable(name) => here && name.is_empty(),
            _ => false,
        };
        for stage in &step.stages {
            if let Stage::Filter(filter) = stage {
                walk(filter, here, names);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonata_core::parser;

    fn roots(text: &str) -> String {
        let ast = parser::parse(text).expect(text);
        of(&ast).into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_names_at_the_root_count() {
        for (text, expected) in [
            ("body.type", "body"),
            ("{ \"event\": body.type, \"id\": id }", "body id"),
            ("data.items[type = 1].body", "data"),
            ("data.{ \"a\": method }", "data"),
            ("$$.headers.`x-id`", "headers"),
            ("items.($$.body.id)", "body items"),
            ("$.body", "body"),
            ("$uppercase(method) & path", "method path"),
            ("($x := body.lines; $sum($x.(price * quantity)))", "body"),
            ("$map(items, function($i) { $i.body })", "items"),
            ("items{ body: $sum(price) }", "items"),
            ("items^(>price).name", "items"),
            ("$ ~> |body|{\"a\": path}|", "body"),
            ("$merge([body, {\"at\": received}])", "body received"),
            ("a ? body : query", "a body query"),
            ("\"body\"", ""),
            ("`content type`", "content type"),
            ("$", ""),
            ("*.body", ""),
        ] {
            assert_eq!(roots(text), expected, "{text}");
        }
    }

    #[test]
    fn an_expression_as_deep_as_the_parser_takes_is_no_danger() {
        let text = format!("{}body{}", "(".repeat(900), ")".repeat(900));
        assert_eq!(roots(&text), "body");
    }
}
