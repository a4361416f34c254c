package config

import (
	"cmp"
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// source is the text of a configuration, and knows where each key stands and
// which parts of the text may be shown.
type source struct {
	name  string // as the operator gave it
	path  string // absolute
	dir   string // relative paths start here
	lines []string
	root  ast.Node // nil for an empty file
	// tokens are the scalars that lie on a line, in part or as a whole.
	tokens map[int][]*token.Token
	// public are the scalars that may be shown: names of keys, and values of known
	// keys that are no secrets. Whatever else stands in the file might be a secret
	// in the wrong place, so it is never shown.
	public map[*token.Token]bool
	// at has the key and the value of every key path that the file holds.
	at map[string]place
	// meant are keys that a misspelt one was probably meant to be: that they are
	// missing needs no word.
	meant    map[string]bool
	problems Problems
}

type place struct{ key, value *token.Token }

func newSource(path string, text []byte) (*source, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	normal := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(text)) // YAML 1.2, section 5.4
	s := &source{
		name:   path,
		path:   absolute,
		dir:    filepath.Dir(absolute),
		lines:  strings.Split(normal, "\n"),
		tokens: make(map[int][]*token.Token),
		public: make(map[*token.Token]bool),
		at:     make(map[string]place),
		meant:  make(map[string]bool),
	}
	tokens, file, err := parseYAML(normal)
	for _, tk := range tokens {
		s.note(tk)
	}
	if err != nil {
		return nil, s.syntaxProblem(err)
	}
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case s.root == nil:
			s.root = doc.Body
		default:
			line := doc.Body.GetToken().Position.Line
			return nil, Problems{{File: path, Line: line, Column: 1, What: "holds more than one YAML document", Fix: "keep one"}}
		}
	}
	return s, nil
}

var errUnreadable = errors.New("this is not YAML")

// parseYAML turns a panic of the parser into an error, because a reload must
// never end a running gateway.
func parseYAML(text string) (tokens token.Tokens, file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			err = errUnreadable
		}
	}()
	tokens = lexer.Tokenize(text)
	file, err = parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	return tokens, file, err
}

// note files a scalar under the lines it may lie on. The lexer gives the first
// line of some multi-line scalars and the last one of others.
func (s *source) note(tk *token.Token) {
	switch tk.Type {
	case token.MappingKeyType, token.MappingValueType, token.MappingStartType, token.MappingEndType, token.SequenceEntryType,
		token.SequenceStartType, token.SequenceEndType, token.CollectEntryType, token.CommentType:
		return
	}
	breaks := strings.Count(strings.TrimSpace(tk.Origin), "\n")
	if tk.Prev != nil && (tk.Prev.Type == token.LiteralType || tk.Prev.Type == token.FoldedType) {
		breaks = strings.Count(tk.Origin, "\n")
	}
	for line := tk.Position.Line - breaks; line <= tk.Position.Line+breaks; line++ {
		s.tokens[line] = append(s.tokens[line], tk)
	}
}

// syntaxProblem describes text that is no YAML. The parser's own words are
// kept where they cannot hold any of the text.
func (s *source) syntaxProblem(err error) error {
	p := Problem{File: s.name, Line: 1, Column: 1, What: errUnreadable.Error(), Fix: "check indentation, quotes and brackets here and above"}
	var syntax interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &syntax) {
		if tk := syntax.GetToken(); tk != nil && tk.Position != nil {
			p.Line, p.Column = min(max(1, tk.Position.Line), len(s.lines)), max(1, tk.Position.Column)
		}
		if message := syntax.GetMessage(); !strings.Contains(message, `"`) && !strings.Contains(message, "\n") {
			p.What += ": " + message
		}
	}
	if strings.Contains(s.lines[p.Line-1], "${") {
		p.Fix = "put values with ${…} in quotes"
	}
	return Problems{p}
}

// problem describes something wrong with a key. A key that is not in the file
// is shown where its nearest parent stands.
func (s *source) problem(key, what, fix string) Problem {
	p := Problem{File: s.name, Line: 1, Column: 1, Key: key, What: what, Fix: fix}
	where, ok := s.at[key]
	tk := where.value
	for parent := key; !ok && parent != ""; {
		parent = parentOf(parent)
		where, ok = s.at[parent]
		if tk = where.key; strings.HasSuffix(parent, "]") {
			tk = where.value
		}
	}
	if tk == nil {
		return p
	}
	return p.on(tk, where.key)
}

// on points a problem at a token, and names the key of its line.
func (p Problem) on(tk, key *token.Token) Problem {
	p.Line, p.Column, p.key = tk.Position.Line, max(1, tk.Position.Column), key
	return p
}

// finish sorts problems and adds their source lines: only after the whole file
// was walked is it known what may be shown.
func (s *source) finish(problems Problems) Problems {
	for i, p := range problems {
		if p.key != nil {
			problems[i].Source = s.shown(p.Line, p.key)
		}
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Key, b.Key))
	})
	return problems
}

func (s *source) report(key, what, fix string) {
	s.problems = append(s.problems, s.problem(key, what, fix))
}

// reportAt is report for a key whose path is not in the index, or is there for
// another place. The key may be shown if the path names it.
func (s *source) reportAt(key *token.Token, path, what, fix string) {
	if strings.HasSuffix(path, key.Value) {
		s.public[key] = true
	}
	s.problems = append(s.problems, s.problem(path, what, fix).on(key, key))
}

func (s *source) has(key string) bool {
	_, ok := s.at[key]
	return ok
}

func parentOf(key string) string {
	return key[:max(0, strings.LastIndexAny(key, ".["))]
}

// plainKey matches names that can be shown although nobody knows them: words,
// and neither a base64 secret nor "key:value" without the blank.
var plainKey = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)

// shown returns a source line if all of it is public, else the key alone if
// that stands on the line and may be shown, else nothing.
func (s *source) shown(line int, key *token.Token) string {
	if line < 1 || line > len(s.lines) {
		return ""
	}
	public := true
	for _, tk := range s.tokens[line] {
		public = public && s.public[tk]
	}
	text := s.lines[line-1]
	if public {
		text, _, _ = strings.Cut(text, " #") // a comment may hold anything
		return strings.TrimRight(printable(text), " ")
	}
	if key.Position.Line != line || !s.public[key] {
		return ""
	}
	indent := len(text) - len(strings.TrimLeft(text, " -"))
	if key.Position.Column != indent+1 {
		return "… " + key.Value + ": …"
	}
	return text[:indent] + key.Value + ": …"
}

// printable keeps control characters off the operator's terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}
