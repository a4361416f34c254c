package proxy

import (
	"net/http"
	"strings"
)

// canonical is the path of a request target that every server on the way reads
// alike, so that the route that is chosen and the resource that answers cannot
// differ (RFC 10017, section 6.1.3.6).
type canonical struct {
	// match is raw in the normal form of RFC 3986, section 6.2.2: unreserved
	// characters decoded, what remains encoded in upper case.
	match string
	// raw is the path as it came. It is the same string as match in all but odd
	// requests.
	raw string
}

// badPath is the error for a path that two servers could read in two ways. It
// names what is wrong and quotes nothing of the request.
type badPath string

func (e badPath) Error() string { return "proxy: bad path: " + string(e) }

// Code is the code of the answer (DESIGN.md, section 7).
func (e badPath) Code() string { return "bad_path" }

// Help is safe to show.
func (e badPath) Help() string { return string(e) }

const (
	errTarget   = badPath("the request target is not an absolute path")
	errSlashes  = badPath("the path begins with two slashes")
	errByte     = badPath("the address contains a control character, a space, a backslash, # or raw non-ASCII")
	errEscape   = badPath("the path contains an invalid percent-encoding")
	errDots     = badPath("the path contains a dot segment")
	errHidden   = badPath("the path contains an encoded slash, backslash or control character")
	errTwice    = badPath("the path contains a character that is encoded twice")
	errOverlong = badPath("the path contains an overlong UTF-8 sequence")
	errReadings = badPath("the path may be read as one that asks for more: write it plainly")
)

// canonicalPath reads the path from the raw request target. It does not look at
// r.URL, which is decoded already and so hides what an upstream would see.
func canonicalPath(r *http.Request) (canonical, error) {
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") {
		rest, ok := afterAuthority(target)
		if !ok {
			return canonical{}, errTarget
		}
		target = rest
	}
	raw, query, _ := strings.Cut(target, "?")
	// No browser sends a fragment (CVE-2026-41059). A space, which only HTTP/2 can
	// bring here, would end the target in a request line.
	if strings.IndexByte(query, '#') >= 0 || strings.IndexByte(query, ' ') >= 0 {
		return canonical{}, errByte
	}
	return canonicalise(raw)
}

// afterAuthority returns what follows scheme and authority in an absolute-form
// target (RFC 9112, section 3.2.2). Userinfo is an error (RFC 9110, section
// 4.2.4): it exists to make one host look like another.
func afterAuthority(target string) (string, bool) {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return "", false
	}
	end := strings.IndexAny(rest, `/?#\`)
	if end < 0 {
		end = len(rest)
	}
	if end == 0 || strings.Contains(rest[:end], "@") {
		return "", false
	}
	// An empty path is the same as "/" (RFC 9110, section 4.2.3).
	if rest = rest[end:]; rest == "" || rest[0] == '?' {
		return "/", true
	}
	return rest, true
}

// canonicalise checks a path. Routes are held against match, so their own paths
// have to be equal to their match.
func canonicalise(raw string) (canonical, error) {
	if raw == "" || raw[0] != '/' {
		return canonical{}, errTarget
	}
	if len(raw) > 1 && raw[1] == '/' {
		return canonical{}, errSlashes // "//host/path" is another host to a browser
	}
	encoded := false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c <= ' ' || c >= 0x7f || c == '\\' || c == '#':
			return canonical{}, errByte
		case c == '%':
			if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
				return canonical{}, errEscape
			}
			encoded = true
		case c == '.' && raw[i-1] == '/' && isDots(raw[i:]):
			return canonical{}, errDots
		}
	}
	if !encoded {
		return canonical{match: raw, raw: raw}, nil
	}
	if err := checkEncoded(raw); err != nil {
		return canonical{}, err
	}
	return canonical{match: normalise(raw), raw: raw}, nil
}

// checkEncoded looks at a path as a server sees it that decodes it, and as a
// server behind that one sees it, which decodes it again.
func checkEncoded(raw string) error {
	var space [512]byte // keeps ordinary paths off the heap
	path := append(space[:0], raw...)
	for _, refusal := range [...]badPath{errHidden, errTwice} {
		n := 0
		for i := 0; i < len(path); i, n = i+1, n+1 {
			c := path[i]
			// A % that encodes nothing is one that was encoded itself ("100%25").
			if c == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]) {
				c = unhex(path[i+1])<<4 | unhex(path[i+2])
				i += 2
				// A dot encoded once is an ordinary character, unless it makes a dot
				// segment. Nobody encodes one twice.
				if c < ' ' || c == 0x7f || c == '/' || c == '\\' || c == '.' && refusal == errTwice {
					return refusal
				}
			}
			path[n] = c
		}
		path = path[:n]
		for i, c := range path {
			switch {
			case c == '.' && path[i-1] == '/' && isDots(path[i:]):
				return errDots
			case c >= 0xc0 && isOverlong(path[i:]):
				return errOverlong
			}
		}
	}
	return nil
}

// isDots tells whether a path goes on with a dot segment. Parameters do not
// count: servlet containers remove ";x" before they resolve "..".
func isDots[T string | []byte](rest T) bool {
	n := 1
	if len(rest) > 1 && rest[1] == '.' {
		n = 2
	}
	return len(rest) == n || rest[n] == '/' || rest[n] == ';'
}

// isOverlong tells whether b begins with a UTF-8 sequence that is longer than
// its character needs, which lenient decoders take for a dot or a slash (RFC
// 3629, section 10). C0 and C1 begin nothing else. Other bytes that are not
// UTF-8 are ordinary: no decoder makes ASCII of them.
func isOverlong(b []byte) bool {
	second := byte(0xff)
	if len(b) > 1 {
		second = b[1]
	}
	switch b[0] {
	case 0xc0, 0xc1:
		return true
	case 0xe0:
		return second >= 0x80 && second < 0xa0
	case 0xf0:
		return second >= 0x80 && second < 0x90
	case 0xf8:
		return second >= 0x80 && second < 0x88
	case 0xfc:
		return second >= 0x80 && second < 0x84
	}
	return false
}

// normalise returns a checked path in the form of canonical.match, without an
// allocation if it is in that form.
func normalise(raw string) string {
	var b strings.Builder
	done := 0 // what b holds, or would hold
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			continue
		}
		c := unhex(raw[i+1])<<4 | unhex(raw[i+2])
		if !isUnreserved(c) && raw[i+1] < 'a' && raw[i+2] < 'a' {
			i += 2
			continue
		}
		if b.Cap() == 0 {
			b.Grow(len(raw))
		}
		b.WriteString(raw[done:i])
		if isUnreserved(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(upper(raw[i+1]))
			b.WriteByte(upper(raw[i+2]))
		}
		i += 2
		done = i + 1
	}
	if done == 0 {
		return raw
	}
	b.WriteString(raw[done:])
	return b.String()
}

// under tells whether the path lies under a route's, and returns the form of it
// to forward: as it came, unless only its normal form lies there.
func (c canonical) under(routePath string) (forward string, ok bool) {
	if !liesUnder(c.match, routePath) {
		return "", false
	}
	if liesUnder(c.raw, routePath) {
		return c.raw, true
	}
	return c.match, true
}

func liesUnder(path, routePath string) bool {
	if strings.HasSuffix(routePath, "/") {
		return strings.HasPrefix(path, routePath)
	}
	return path == routePath
}

// loosely is a path as the most lenient of upstreams reads it: decoded twice,
// without parameters, several slashes as one, the dots and spaces at the end of a
// segment dropped as Windows does, in lower case as IIS and Express compare. No
// slash and no dot segment can come out of it that canonicalise did not see.
func loosely(path string) string {
	for range 2 {
		path = decoded(path)
	}
	var b strings.Builder
	b.Grow(len(path))
	b.WriteByte('/')
	for segment, more := "", true; more; {
		segment, path, more = strings.Cut(path, "/")
		segment, _, _ = strings.Cut(segment, ";")
		if segment = strings.TrimRight(segment, ". "); segment == "" {
			continue
		}
		b.WriteString(strings.ToLower(strings.ToUpper(segment))) // the capital of ſ is an ASCII one, the small letter of K (Kelvin) too
		if more {
			b.WriteByte('/')
		}
	}
	return b.String()
}

// decoded decodes what can be decoded.
func decoded(path string) string {
	if strings.IndexByte(path, '%') < 0 {
		return path
	}
	b := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]) {
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			i += 2
		}
		b = append(b, c)
	}
	return string(b)
}

// isUnreserved is RFC 3986, section 2.3.
func isUnreserved(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return upper(c) - 'A' + 10
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}
