"""Which programming language a file is in, by its name or its first line; the names are those of Pygments."""

from __future__ import annotations

import re

from crawler.contracts import Source

_SUFFIXES = {
    "ada": "adb ads",
    "applescript": "applescript",
    "bash": "sh bash zsh ksh bats",
    "batch": "bat cmd",
    "c": "c h",
    "clojure": "clj cljs cljc edn",
    "cmake": "cmake",
    "cobol": "cob cbl cpy",
    "cpp": "cpp cxx cc hpp hxx hh ino cu",
    "csharp": "cs",
    "css": "css",
    "d": "d",
    "dart": "dart",
    "diff": "diff patch",
    "elixir": "ex exs",
    "elm": "elm",
    "erlang": "erl hrl",
    "fish": "fish",
    "fortran": "f90 f95 f03 f for",
    "fsharp": "fs fsx fsi",
    "go": "go",
    "graphql": "graphql gql",
    "groovy": "groovy gradle",
    "haskell": "hs",
    "hcl": "tf tfvars hcl",
    "ini": "ini cfg conf properties env desktop service",
    "java": "java",
    "javascript": "js mjs cjs",
    "jsx": "jsx",
    "julia": "jl",
    "kotlin": "kt kts",
    "less": "less",
    "lisp": "lisp el scm rkt",
    "lua": "lua",
    "makefile": "mk mak",
    "matlab": "m",
    "nim": "nim",
    "ocaml": "ml mli",
    "pascal": "pas pp dpr",
    "perl": "pl pm",
    "php": "php phtml",
    "powershell": "ps1 psm1 psd1",
    "protobuf": "proto",
    "python": "py pyi pyw",
    "r": "r",
    "ruby": "rb rake gemspec",
    "rust": "rs",
    "sass": "sass",
    "scala": "scala sc",
    "scss": "scss",
    "solidity": "sol",
    "sql": "sql ddl psql",
    "svelte": "svelte",
    "swift": "swift",
    "tcl": "tcl",
    "terraform": "tofu",
    "thrift": "thrift",
    "toml": "toml",
    "tsx": "tsx",
    "typescript": "ts mts cts",
    "vb.net": "vb bas vbs",
    "verilog": "v sv",
    "vhdl": "vhd vhdl",
    "vue": "vue",
    "yaml": "yaml yml",
    "zig": "zig",
}
_BY_SUFFIX = {f".{suffix}": name for name, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_BY_NAME = {
    "brewfile": "ruby",
    "cmakelists.txt": "cmake",
    "containerfile": "docker",
    "dockerfile": "docker",
    "gemfile": "ruby",
    "gnumakefile": "makefile",
    "jenkinsfile": "groovy",
    "makefile": "makefile",
    "rakefile": "ruby",
    "vagrantfile": "ruby",
    ".bashrc": "bash",
    ".profile": "bash",
    ".zshrc": "bash",
}
_BY_INTERPRETER = {
    "bash": "bash",
    "dash": "bash",
    "ksh": "bash",
    "lua": "lua",
    "node": "javascript",
    "perl": "perl",
    "php": "php",
    "pwsh": "powershell",
    "python": "python",
    "rscript": "r",
    "ruby": "ruby",
    "sh": "bash",
    "zsh": "bash",
}
_SHEBANG = re.compile(rb"#!\s{0,4}\S{0,100}/(?:env\s{1,4}(?:-S\s{1,4})?)?([A-Za-z]{1,16})")


def language_of(source: Source) -> str | None:
    """The language, or None: by the whole name, the suffix, or the interpreter of a file without one."""
    name = source.filename.replace("\\", "/").rpartition("/")[2].lower()
    if found := _BY_NAME.get(name) or _BY_SUFFIX.get(source.suffix):
        return found
    if "." in name or not (shebang := _SHEBANG.match(source.content[:256])):
        return None
    return _BY_INTERPRETER.get(shebang[1].decode().lower())
