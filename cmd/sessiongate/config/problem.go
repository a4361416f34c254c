package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// Problem is one thing that is wrong, or unwise, with a configuration.
type Problem struct {
	File         string
	Line, Column int
	Key          string // apps[0].oidc.issuer; empty for text that is no YAML
	What         string // what is wrong; never holds a value
	Fix          string // what to do
	Source       string // the line, without secrets; may be empty

	key *token.Token // the key that the line is about, until Source is known
}

// String is file:line:column: key: what; fix, and the source line below it.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Column)
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.What)
	if p.Fix != "" {
		b.WriteString("; " + p.Fix)
	}
	if p.Source != "" {
		fmt.Fprintf(&b, "\n%6d | %s", p.Line, p.Source)
	}
	return b.String()
}

// Insecure tells warnings of a key that switches protection off, as its name says.
func (p Problem) Insecure() bool { return strings.Contains(p.Key, ".insecure_") }

// Problems is everything that is wrong, in the order of the file. It is the
// error of Load and Parse.
type Problems []Problem

func (p Problems) Error() string {
	texts := make([]string, len(p))
	for i, problem := range p {
		texts[i] = problem.String()
	}
	return strings.Join(texts, "\n")
}

// about tells whether there is a problem with the key, something in it, or
// something it is in: then further complaints about it would be noise.
func (p Problems) about(key string) bool {
	return slices.ContainsFunc(p, func(q Problem) bool {
		return q.Key == key || within(key, q.Key) || within(q.Key, key)
	})
}

// within tells whether key is below parent.
func within(key, parent string) bool {
	rest, ok := strings.CutPrefix(key, parent)
	return ok && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

// closest returns the name that was probably meant, or "".
func closest(word string, names []string) string {
	best, distance := "", max(1, len(word)/3)+1
	for _, name := range names {
		if d := editDistance(strings.ToLower(word), name); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// editDistance counts insertions, deletions, replacements and swaps of
// neighbours (optimal string alignment).
func editDistance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			row[j] = last[j-1]
			if a[i-1] != b[j-1] {
				row[j] = 1 + min(last[j-1], last[j], row[j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
