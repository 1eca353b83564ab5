#!/usr/bin/env python3
"""Standalone JSON schemas for kubeconform, made from the data of PyPI's `kubernetes-validate`.

    schemas.py WHEEL VERSION OUT

kubeconform would fetch one schema per kind from GitHub; here nothing but package registries is reachable, and a
check must not depend on the day's network anyway.  The wheel's schemas share one file of definitions, which kubeconform
cannot follow: each schema gets its definitions written in.
"""
import json, os, sys, zipfile

wheel, version, out = sys.argv[1:]
archive = zipfile.ZipFile(wheel)
folder = f"kubernetes_validate/kubernetes-json-schema/v{version}-local-strict/"
read = lambda name: json.loads(archive.read(folder + name))
definitions = read("_definitions.json")
definitions = definitions.get("$defs") or definitions["definitions"]


def inlined(node, within=()):
    if isinstance(node, list):
        return [inlined(item, within) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        name = node["$ref"].rsplit("/", 1)[1]
        # a schema that holds itself (JSONSchemaProps): anything goes below
        return {} if name in within else inlined(definitions[name], within + (name,))
    return {key: inlined(value, within) for key, value in node.items() if key != "$defs"}


os.makedirs(out, exist_ok=True)
for path in archive.namelist():
    name = path.removeprefix(folder)
    if name == path or not name.endswith(".json") or name.startswith("_") or name == "all.json":
        continue
    schema = read(name)
    if "apiVersion" in schema.get("properties", {}):
        with open(os.path.join(out, name), "w") as file:
            json.dump(inlined(schema), file)
