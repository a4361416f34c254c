package config

import (
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

type scalarKind int

const (
	textKind scalarKind = iota
	numberKind
	boolKind
)

// scalar is one value as it was written, after expansion.
type scalar struct {
	text     string
	kind     scalarKind
	expanded bool // came from outside, so numbers and booleans in it are text to YAML
}

// fault says what is wrong with a value, without the value, and what to do.
type fault struct{ what, fix string }

var (
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[time.Duration]()
	urlType      = reflect.TypeFor[*url.URL]()
	prefixType   = reflect.TypeFor[netip.Prefix]()
	fileType     = reflect.TypeFor[File]()
	pathType     = reflect.TypeFor[Path]()
)

// isScalar tells the types that are one value in YAML though not in Go.
func isScalar(t reflect.Type) bool { return t == urlType || t == prefixType }

// scalar decodes one value into a field.
func (d *decoder) scalar(key string, n ast.Node, v reflect.Value, tag reflect.StructTag) {
	secret := v.Type() == secretType
	if !secret {
		d.publish(n)
	}
	s, f := d.read(n, secret)
	if f == nil {
		f = d.parse(s, v, tag)
	}
	if f != nil {
		d.src.report(key, f.what, f.fix)
	}
}

// password finds values that may be URLs with a password in them, however
// misspelt.
var password = regexp.MustCompile(`@|/[^/:]*:[^/0-9]`)

// publish allows a value on one line to be shown. One on several may have
// swallowed what the operator meant for another key.
func (d *decoder) publish(n ast.Node) {
	if n, ok := n.(ast.ScalarNode); ok {
		tk := n.GetToken()
		d.src.public[tk] = !password.MatchString(tk.Value) && !strings.Contains(strings.TrimSpace(tk.Origin), "\n")
	}
}

// read takes the text out of a node and expands it.
func (d *decoder) read(n ast.Node, secret bool) (scalar, *fault) {
	s := scalar{text: n.GetToken().Value}
	switch n := n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		s.kind = numberKind
		return s, nil
	case *ast.BoolNode:
		s.kind = boolKind
		return s, nil
	case *ast.StringNode:
		s.text = n.Value
	case *ast.LiteralNode:
		s.text = n.Value.Value
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return s, &fault{"is " + nodeName(n) + ", which this file may not hold", "write the value itself"}
	case *ast.MappingNode, *ast.MappingValueNode:
		// Within braces the parser takes host:port for one.
		return s, &fault{"is a mapping, not a single value", "write one value, in quotes where it holds a colon"}
	default:
		return s, &fault{"is " + nodeName(n) + ", not a single value", "write one value"}
	}
	var err *expandError
	s.text, s.expanded, err = d.expand(s.text, secret)
	if err != nil {
		return s, &fault{err.what, err.fix}
	}
	return s, nil
}

// parse puts a value into a field of any scalar type.
func (d *decoder) parse(s scalar, v reflect.Value, tag reflect.StructTag) *fault {
	switch {
	case v.Type() == durationType:
		return parseDuration(s, v)
	case v.Kind() == reflect.Bool:
		return parseBool(s, v)
	case v.CanInt():
		return parseInt(s, v)
	case s.kind != textKind:
		return &fault{"is a number or a truth value, not text", "put it in quotes"}
	case strings.ContainsRune(s.text, 0):
		return &fault{"holds a NUL character", "remove it"}
	}
	switch v.Type() {
	case urlType:
		return parseURL(s, v)
	case prefixType:
		return parsePrefix(s, v)
	case fileType, pathType:
		if s.text != "" {
			v.SetString(d.src.resolve(s.text))
		}
		if v.Type() == fileType && s.text != "" {
			d.files = append(d.files, v.String())
		}
		return nil
	}
	if words := strings.Fields(tag.Get("enum")); len(words) > 0 && !slices.Contains(words, s.text) && (s.text != "" || tag.Get("default") != "") {
		return enumFault(words, tag)
	}
	v.SetString(s.text)
	return nil
}

// enumFault names the allowed words. A key without a default may also be empty.
func enumFault(words []string, tag reflect.StructTag) *fault {
	f := &fault{"is not one of " + strings.Join(words, ", "), "use one of these"}
	if hint := tag.Get("hint"); hint != "" {
		f.fix += ": " + hint
	}
	return f
}

func parseDuration(s scalar, v reflect.Value) *fault {
	duration, err := time.ParseDuration(s.text)
	switch {
	case err != nil && s.kind == numberKind:
		return &fault{"is a number without a unit", "write a duration such as 30s, 5m or 12h"}
	case err != nil:
		return &fault{"is not a duration", "write a duration such as 30s, 5m or 12h"}
	case duration < 0:
		return &fault{"is negative", "write a duration of 0s or more"}
	}
	v.SetInt(int64(duration))
	return nil
}

func parseBool(s scalar, v reflect.Value) *fault {
	if s.kind == numberKind || s.kind == textKind && !s.expanded || s.text != "true" && s.text != "false" {
		return &fault{"is neither true nor false", "write true or false, without quotes"}
	}
	v.SetBool(s.text == "true")
	return nil
}

func parseInt(s scalar, v reflect.Value) *fault {
	number, err := strconv.ParseInt(s.text, 10, v.Type().Bits())
	switch {
	case err != nil, s.kind == boolKind, s.kind == textKind && !s.expanded:
		return &fault{"is not a whole number", "write decimal digits only, without quotes"}
	case number < 0:
		return &fault{"is negative", "write 0 or more"}
	}
	v.SetInt(number)
	return nil
}

func parseURL(s scalar, v reflect.Value) *fault {
	if s.text == "" {
		return nil
	}
	u, err := url.Parse(s.text)
	if err != nil || u.Scheme == "" {
		return &fault{"is not a URL", "write one such as https://api.example.com, with special characters percent-encoded"}
	}
	v.Set(reflect.ValueOf(u))
	return nil
}

func parsePrefix(s scalar, v reflect.Value) *fault {
	prefix, err := netip.ParsePrefix(s.text)
	if err != nil {
		return &fault{"is not a CIDR", "write one such as 10.0.0.0/8, or 192.0.2.7/32 for one address"}
	}
	if prefix != prefix.Masked() {
		return &fault{"is a CIDR with host bits set", "write zeros behind the prefix: 10.1.0.0/16, not 10.1.2.3/16"}
	}
	v.Set(reflect.ValueOf(prefix))
	return nil
}
