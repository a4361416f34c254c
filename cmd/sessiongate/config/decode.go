package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decoder fills a Config from the parsed file. It goes on after a problem, so
// that an operator sees all of them at once.
type decoder struct {
	src   *source
	files []string
}

// document decodes the whole file.
func (d *decoder) document(c *Config) {
	v := reflect.ValueOf(c).Elem()
	if d.src.root == nil {
		d.defaults("", v)
		d.missing("", v, nil)
		return
	}
	d.structure("", d.src.root, v)
}

// structure decodes a mapping into a struct by the fields' tags.
func (d *decoder) structure(key string, n ast.Node, v reflect.Value) {
	d.defaults(key, v)
	entries, ok := d.entries(key, n)
	if !ok {
		return
	}
	seen := make(map[string]bool)
	for _, entry := range entries {
		name := entry.Key.GetToken()
		field, known := fieldNamed(v.Type(), name.Value)
		if !known {
			d.unknown(key, entry, v.Type())
			continue
		}
		d.src.public[name] = true
		path := join(key, name.Value)
		if seen[name.Value] {
			d.duplicate(path, name)
			continue
		}
		seen[name.Value] = true
		d.src.at[path] = place{name, startOf(entry.Value)}
		d.value(path, entry.Value, v.FieldByIndex(field.Index), field.Tag)
	}
	d.missing(key, v, seen)
}

// defaults sets what the tags say, in the whole struct: a mapping that is
// absent has its defaults too.
func (d *decoder) defaults(key string, v reflect.Value) {
	for _, field := range fields(v.Type()) {
		target := v.FieldByIndex(field.Index)
		if target.Kind() == reflect.Struct && !isScalar(target.Type()) {
			d.defaults("", target)
			continue
		}
		text, ok := field.Tag.Lookup("default")
		if !ok {
			continue
		}
		if target.Kind() == reflect.Slice {
			target.Set(reflect.ValueOf(strings.Fields(text)))
			continue
		}
		// A default that does not parse is a mistake in this package; its test says so.
		_ = d.parse(scalar{text: text, kind: textKind, expanded: true}, target, field.Tag)
	}
}

// missing reports required keys that are absent.
func (d *decoder) missing(key string, v reflect.Value, seen map[string]bool) {
	for _, field := range fields(v.Type()) {
		name, path := field.Tag.Get("yaml"), join(key, field.Tag.Get("yaml"))
		switch {
		case field.Tag.Get("required") == "" || d.src.meant[path]:
		case !seen[name]:
			d.src.report(path, "is required and missing", "add it")
		case v.FieldByIndex(field.Index).IsZero() && !d.src.problems.about(path):
			d.src.report(path, "is required and empty", "give it a value")
		}
	}
}

// unknown reports a key that is not in the schema.
func (d *decoder) unknown(key string, entry *ast.MappingValueNode, t reflect.Type) {
	name := entry.Key.GetToken()
	var names []string
	for _, field := range fields(t) {
		names = append(names, field.Tag.Get("yaml"))
	}
	fix := "the keys here are " + strings.Join(names, ", ")
	guess := closest(name.Value, names)
	if guess != "" {
		fix = fmt.Sprintf("did you mean %q?", guess)
		d.src.meant[join(key, guess)] = true
	}
	path := join(key, name.Value)
	if !isName(entry, guess) {
		path = join(key, "…")
	}
	d.src.reportAt(name, path, "unknown key", fix)
}

// isName tells whether a key that nobody knows can be shown: it is a word, and
// it has a value or resembles a key. Otherwise it may be a secret that lost its
// own key.
func isName(entry *ast.MappingValueNode, resembles string) bool {
	_, empty := entry.Value.(*ast.NullNode)
	return plainKey.MatchString(entry.Key.GetToken().Value) && (!empty || resembles != "")
}

func (d *decoder) duplicate(path string, name *token.Token) {
	d.src.reportAt(name, path, fmt.Sprintf("is given twice, first on line %d", d.src.at[path].key.Position.Line), "remove one")
}

// value decodes any node into any field.
func (d *decoder) value(key string, n ast.Node, v reflect.Value, tag reflect.StructTag) {
	if _, ok := n.(*ast.NullNode); ok {
		d.src.report(key, "is empty", "give it a value, or remove the key")
		return
	}
	switch {
	case isScalar(v.Type()):
		d.scalar(key, n, v, tag)
	case v.Kind() == reflect.Struct:
		d.structure(key, n, v)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.structure(key, n, v.Elem())
	case v.Kind() == reflect.Slice:
		d.list(key, n, v, tag)
	case v.Kind() == reflect.Map:
		d.table(key, n, v, tag)
	default:
		d.scalar(key, n, v, tag)
	}
}

func (d *decoder) list(key string, n ast.Node, v reflect.Value, tag reflect.StructTag) {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		d.src.report(key, "is "+nodeName(n)+", not a list", "write [a, b], or one item per line, each after a dash")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(sequence.Values), len(sequence.Values)))
	for i, item := range sequence.Values {
		path := fmt.Sprintf("%s[%d]", key, i)
		d.src.at[path] = place{d.src.at[key].key, startOf(item)}
		d.value(path, item, v.Index(i), tag)
	}
}

// table decodes a mapping whose keys the operator chooses.
func (d *decoder) table(key string, n ast.Node, v reflect.Value, tag reflect.StructTag) {
	entries, ok := d.entries(key, n)
	if !ok {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, entry := range entries {
		name := entry.Key.GetToken()
		if _, empty := entry.Value.(*ast.NullNode); empty || !tableKey.MatchString(name.Value) {
			d.src.reportAt(name, join(key, "…"), "is not a plain name with a value", "use letters, digits, - and _, at most 64, and give it a value")
			continue
		}
		d.src.public[name] = true
		path := join(key, name.Value)
		if d.src.has(path) {
			d.duplicate(path, name)
			continue
		}
		d.src.at[path] = place{name, startOf(entry.Value)}
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(path, entry.Value, item, tag)
		v.SetMapIndex(reflect.ValueOf(name.Value), item)
	}
}

// entries returns a mapping's entries, whether it has one or many.
func (d *decoder) entries(key string, n ast.Node) ([]*ast.MappingValueNode, bool) {
	var entries []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		entries = n.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{n}
	default:
		d.src.report(key, "is "+nodeName(n)+", not a mapping", "write its keys on lines of their own, indented")
		return nil, false
	}
	kept := slices.DeleteFunc(slices.Clone(entries), func(entry *ast.MappingValueNode) bool {
		_, merge := entry.Key.(*ast.MergeKeyNode)
		if merge {
			d.src.report(key, "holds a merge key (<<)", "write the keys out")
		}
		return merge
	})
	return kept, true
}

// fields are the struct's fields that are keys of the configuration.
func fields(t reflect.Type) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Tag.Get("yaml") == "" })
}

func fieldNamed(t reflect.Type, name string) (reflect.StructField, bool) {
	all := fields(t)
	i := slices.IndexFunc(all, func(f reflect.StructField) bool { return f.Tag.Get("yaml") == name })
	if i < 0 {
		return reflect.StructField{}, false
	}
	return all[i], true
}

func join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}

// startOf is the token that a reader would point at for a node: for a block
// mapping its first key, not the colon behind it.
func startOf(n ast.Node) *token.Token {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		return m.Key.GetToken()
	}
	return n.GetToken()
}

var nodeNames = map[ast.NodeType]string{
	ast.StringType: "text", ast.LiteralType: "text", ast.IntegerType: "a number", ast.FloatType: "a number",
	ast.InfinityType: "a number", ast.NanType: "a number", ast.BoolType: "true or false", ast.NullType: "empty",
	ast.MappingType: "a mapping", ast.MappingValueType: "a mapping", ast.SequenceType: "a list",
	ast.AnchorType: "an anchor", ast.AliasType: "an alias", ast.TagType: "a tag",
}

func nodeName(n ast.Node) string {
	if name, ok := nodeNames[n.Type()]; ok {
		return name
	}
	return "something else"
}

// tableKey matches the keys that operators may choose.
var tableKey = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
