package oidc

import (
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
)

// maxReturnURL is the length of the longest returnUrl, as it is sent back.
const maxReturnURL = 1 << 10

// ReturnURL checks where a browser asks to go after a login or logout, and
// returns it as it can stand in a Location header: byte for byte as it came, but
// for non-ASCII and spaces, which are percent-encoded. Without any it is "/".
//
// What it returns is a path on the origin it is used on, by the rules of the URL
// Standard that browsers follow (https://url.spec.whatwg.org/), and not one of
// our own endpoints below basePath. Paths that the gateway would refuse as
// ambiguous are refused here, where there still is somebody to tell.
func ReturnURL(s, basePath string) (string, error) {
	if s == "" {
		return "/", nil
	}
	if s[0] != '/' || strings.HasPrefix(s, "//") {
		return "", errors.New("it is not a path")
	}
	// Browsers take \ for /, and drop tabs and line ends wherever they stand.
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return "", errors.New(`it has a control character or a \`)
	}
	s = escape(s)
	if len(s) > maxReturnURL {
		return "", errors.New("it is longer than 1 KiB")
	}
	path := s
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		path = s[:i]
	}
	plain, err := url.PathUnescape(path)
	if err != nil {
		return "", errors.New("its percent-encoding is wrong")
	}
	if ambiguous(path, plain) {
		return "", errors.New(`its path has a dot segment, an encoded /, \ or control character, or overlong UTF-8`)
	}
	if basePath != "" && (plain == basePath || strings.HasPrefix(plain, strings.TrimSuffix(basePath, "/")+"/")) {
		return "", errors.New("it is one of the gateway's own endpoints")
	}
	return s, nil
}

// ambiguous tells whether a path may mean another to somebody on its way, who
// decodes it once, or once more than we do.
func ambiguous(path, plain string) bool {
	if strings.Contains(strings.ToLower(plain), "%2e") {
		return true // nobody encodes a dot twice
	}
	for _, read := range []string{plain, decoded(plain)} {
		if strings.Count(read, "/") != strings.Count(path, "/") || oddBytes(read) || dotSegment(read) || overlong(read) {
			return true
		}
	}
	return false
}

// decoded decodes what can be decoded: of a path that was decoded already a % may
// be just that.
func decoded(path string) string {
	parts := strings.Split(path, "%")
	for i, part := range parts[1:] {
		parts[i+1] = "%" + part
		if len(part) < 2 {
			continue
		}
		if c, err := hex.DecodeString(part[:2]); err == nil {
			parts[i+1] = string(c) + part[2:]
		}
	}
	return strings.Join(parts, "")
}

// overlong finds UTF-8 sequences that are longer than their character needs, which
// lenient decoders take for a dot or a slash (RFC 3629, section 10).
func overlong(path string) bool {
	for i := range len(path) - 1 {
		lead, next := path[i], path[i+1]
		switch {
		case lead == 0xc0 || lead == 0xc1,
			lead == 0xe0 && next >= 0x80 && next < 0xa0,
			lead == 0xf0 && next >= 0x80 && next < 0x90,
			lead == 0xf8 && next >= 0x80 && next < 0x88,
			lead == 0xfc && next >= 0x80 && next < 0x84:
			return true
		}
	}
	return path != "" && path[len(path)-1]&^1 == 0xc0
}

func oddBytes(path string) bool {
	return strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' })
}

func dotSegment(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		// Some servers cut path parameters off before they look at dots: "/..;x/".
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// escape percent-encodes spaces and every byte that is not ASCII.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
