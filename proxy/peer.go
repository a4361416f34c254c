package proxy

import (
	"net/http"
	"net/netip"
	"strings"
)

// hostOf is the address in a host:port, without an allocation.
func hostOf(hostport string) string {
	i := strings.LastIndexByte(hostport, ':')
	if i <= 0 {
		return "unknown" // a peer on a unix socket has none (RFC 7239, section 6.2)
	}
	host := hostport[:i]
	if host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}

// trusts tells whether an address is one of the trusted proxies.
func (g *Gateway) trusts(address string) bool {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	a = a.Unmap().WithZone("")
	for _, p := range g.trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// clientBehind finds the browser's address behind trusted proxies: the
// right-most hop that is none of them. What stands left of it anybody may have
// written (HT-04).
func (g *Gateway) clientBehind(peer string, h http.Header) string {
	hops := forwardedFor(h)
	client := peer
	for i := len(hops) - 1; i >= 0; i-- {
		a, ok := parseHop(hops[i])
		if !ok {
			break
		}
		client = a.String()
		if !g.trusts(client) {
			break
		}
	}
	return client
}

// forwardedFor lists the hops of X-Forwarded-For or, where there is none, of
// Forwarded (RFC 7239).
func forwardedFor(h http.Header) []string {
	var hops []string
	for _, line := range h["X-Forwarded-For"] {
		for hop := range strings.SplitSeq(line, ",") {
			hops = append(hops, strings.TrimSpace(hop))
		}
	}
	if hops != nil {
		return hops
	}
	for _, line := range h["Forwarded"] {
		hops = append(hops, elements(line)...)
	}
	return hops
}

// elements lists the hops in one line of Forwarded. A line with quotes out of
// order is a single hop that is nobody: a proxy may have put its own element
// between quotes of somebody who hides there.
func elements(line string) []string {
	var hops []string
	for element := range splitUnquoted(line, ',') {
		hop, n := "", 0
		for pair := range splitUnquoted(element, ';') {
			name, value, _ := strings.Cut(pair, "=")
			value, ok := unquote(strings.TrimSpace(value))
			if !ok || strings.Contains(name, `"`) {
				return []string{""}
			}
			if strings.EqualFold(strings.TrimSpace(name), "for") {
				hop, n = value, n+1
			}
		}
		if n > 1 { // RFC 7239, section 4, allows one
			hop = ""
		}
		hops = append(hops, hop)
	}
	return hops
}

// unquote reads a token or a quoted string. Escapes are left as they are: no
// address has any.
func unquote(s string) (string, bool) {
	if !strings.Contains(s, `"`) {
		return s, true
	}
	if len(s) < 2 || s[0] != '"' {
		return "", false
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[1:i], i == len(s)-1
		}
	}
	return "", false
}

// parseHop reads an address with or without port and brackets.
func parseHop(s string) (netip.Addr, bool) {
	bare := s
	if bracket := strings.IndexByte(s, ']'); bracket >= 0 {
		if strings.IndexByte(s[bracket+1:], ']') >= 0 {
			return netip.Addr{}, false // a zone may hold anything else
		}
		if s[0] == '[' && bracket == len(s)-1 {
			bare = s[1:bracket]
		}
	}
	if a, err := netip.ParseAddr(bare); err == nil {
		return a.Unmap().WithZone(""), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	return netip.Addr{}, false
}

// splitUnquoted splits at separators outside quoted strings (RFC 9110, section
// 5.6.4).
func splitUnquoted(s string, sep byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		start, quoted := 0, false
		for i := 0; i < len(s); i++ {
			switch {
			case s[i] == '"':
				quoted = !quoted
			case s[i] == '\\' && quoted:
				i++
			case s[i] == sep && !quoted:
				if !yield(s[start:i]) {
					return
				}
				start = i + 1
			}
		}
		yield(s[start:])
	}
}
