package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expandError says why a reference could not be replaced, without the text
// around it.
type expandError struct{ what, fix string }

func (e *expandError) Error() string { return e.what }

// expand replaces ${NAME} and ${file:PATH}; $${ stands for ${ itself. It works
// on scalars after parsing, so no value can become YAML, and what was put in is
// not expanded again. In secrets a reference is named only when it is all there
// is: a password may hold "${" by chance.
func (d *decoder) expand(text string, secret bool) (value string, expanded bool, err *expandError) {
	var b strings.Builder
	for rest := text; ; {
		i := strings.Index(rest, "${")
		if i < 0 {
			b.WriteString(rest)
			return b.String(), expanded, nil
		}
		if i > 0 && rest[i-1] == '$' {
			b.WriteString(rest[:i-1] + "${")
			rest = rest[i+2:]
			continue
		}
		name, after, closed := strings.Cut(rest[i+2:], "}")
		if !closed {
			return "", true, &expandError{"has a ${ without }", "close it, or write $${ for a ${ that is meant as such"}
		}
		value, err := d.reference(name, !secret || strings.HasPrefix(text, "${") && after == "" && b.Len() == 0)
		if err != nil {
			return "", true, err
		}
		b.WriteString(rest[:i] + value)
		rest, expanded = after, true
	}
}

func (d *decoder) reference(name string, nameable bool) (string, *expandError) {
	const escape = "; for a ${ that is meant as such write $${"
	if path, ok := strings.CutPrefix(name, "file:"); ok {
		return d.file(path, nameable)
	}
	if !variableName.MatchString(name) {
		return "", &expandError{"has a ${…} that is neither ${NAME} nor ${file:PATH}", "name an environment variable or a file" + escape}
	}
	value, ok := os.LookupEnv(name)
	if !ok && nameable {
		return "", &expandError{fmt.Sprintf("the environment variable %s is not set", name), "set it" + escape}
	}
	if !ok {
		return "", &expandError{"refers to an environment variable that is not set", "set it" + escape}
	}
	return value, nil
}

func (d *decoder) file(path string, nameable bool) (string, *expandError) {
	if path == "" {
		return "", &expandError{"has a ${file:} without a path", "name a file"}
	}
	path = d.src.resolve(path)
	d.files = append(d.files, path) // watched also when it is missing: it may come
	content, err := readSmall(path)
	if err == nil {
		return strings.TrimRight(string(content), "\r\n"), nil
	}
	what := "refers to a file that cannot be read"
	if nameable {
		what += ": " + reason(err, path)
	}
	return "", &expandError{what, "create it, or make it readable by the gateway's user"}
}

// reason is an error of the file system with its path once.
func reason(err error, path string) string {
	switch {
	case os.IsNotExist(err):
		return path + " does not exist"
	case os.IsPermission(err):
		return path + " may not be read"
	}
	return err.Error()
}

// resolve makes a path of the configuration absolute.
func (s *source) resolve(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(s.dir, path)
}
