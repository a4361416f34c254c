package proxy

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// headerRules are Headers compiled.
type headerRules struct {
	set    http.Header
	remove []string
	drops  map[string]bool // names of either, which clients cannot send in any spelling
}

// framing fields belong to one connection or one message; rewriting them makes
// two servers disagree on where a message ends.
var framing = []string{"Connection", "Content-Length", "Host", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// compile checks names and values. ours tells that Authorization is spoken for.
func (c Headers) compile(ours bool) (headerRules, error) {
	rules := headerRules{set: http.Header{}, drops: map[string]bool{}}
	var faults []error
	add := func(name string) string {
		key := textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case !isToken(name):
			faults = append(faults, fmt.Errorf("%q is not a header name", name))
		case slices.Contains(framing, key):
			faults = append(faults, fmt.Errorf("%s cannot be changed", key))
		case ours && key == "Authorization":
			faults = append(faults, errors.New("the route has an Authorization already; see token and forward_authorization"))
		}
		rules.drops[fold(key)] = true
		return key
	}
	for name, value := range c.Set {
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			faults = append(faults, fmt.Errorf("the value of %s has control characters", name))
		}
		rules.set[add(name)] = []string{value}
	}
	for _, name := range c.Remove {
		rules.remove = append(rules.remove, add(name))
	}
	return rules, errors.Join(faults...)
}

// apply makes the changes. The values are shared, and nobody appends in place.
func (r *headerRules) apply(h http.Header) {
	for _, name := range r.remove {
		delete(h, name)
	}
	for name, value := range r.set {
		h[name] = value
	}
}

// isToken is RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// fold maps all spellings that some server takes for one name to one spelling:
// CGI, WSGI and PHP fold "_", "." and "-" and forget the case (CVE-2025-64484).
func fold(name string) string {
	odd := func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			return c
		case 'A' <= c && c <= 'Z':
			return c - 'A' + 'a'
		}
		return '-'
	}
	return textproto.CanonicalMIMEHeaderKey(strings.Map(odd, name))
}

// isOdd tells names that another server may take for another name.
func isOdd(name string) bool {
	for i := range len(name) {
		if plain[name[i]] == 0 {
			return true
		}
	}
	return false
}

var plain = func() (t [256]byte) {
	for _, c := range "-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t[c] = 1
	}
	return
}()

// pseudonym stands for this process in Via, in place of a name that tells about
// the network (RFC 9110, section 7.6.3).
var pseudonym = "sessiongate-" + strings.ToLower(rand.Text()[:12])

// The header fields of all requests, which they share.
var (
	via11         = []string{"1.1 " + pseudonym}
	via10         = []string{"1.0 " + pseudonym}
	via20         = []string{"2.0 " + pseudonym}
	teTrailers    = []string{"trailers"}
	upgradeHeader = []string{"Upgrade"}
	webSocket     = []string{"websocket"}
)

// prepare makes the upstream request's header of the browser's, in place: what
// only concerned us is removed, then what only we can say is added. In this
// order, so that a client's Connection field cannot name what is added
// (CVE-2021-33197, PX-16).
func (x *exchange) prepare(r *http.Request) error {
	h, rt := r.Header, x.route
	x.handshake = isHandshake(r.Method, h)
	trailers := hasToken(h["Te"], "trailers")
	removeNamed(h, h["Connection"])
	stripCookies(h, x.app.ownsCookie)
	keepTrace := x.trusted && h["Traceparent"] != nil && h["Traceparent"][0] == x.traceparent
	for name := range h {
		if rt.drops(name, x.trusted, keepTrace) {
			delete(h, name)
		}
	}
	if err := x.addVia(r, h); err != nil {
		return err
	}
	if trailers {
		h["Te"] = teTrailers
	}
	if x.handshake {
		h["Connection"], h["Upgrade"] = upgradeHeader, webSocket
	}
	x.addForwarded(h)
	x.values[1], x.values[2] = x.requestID, x.traceparent
	h["X-Request-Id"], h["Traceparent"] = x.values[1:2:2], x.values[2:3:3]
	if x.token != nil {
		h["Authorization"] = x.token.Header
	}
	rt.requestRules.apply(h)
	return nil
}

// removeNamed removes the fields that Connection names, over all its lines (RFC
// 9110, section 7.6.1).
func removeNamed(h http.Header, connection []string) {
	for _, line := range connection {
		if line == "keep-alive" || line == "close" || line == "Upgrade" {
			continue // no such fields outlive this
		}
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.Trim(name, " \t"); name != "" {
				h.Del(name)
			}
		}
	}
}

// drops tells whether a field of a request must not reach the upstream as it is.
func (rt *route) drops(name string, trusted, keepTrace bool) bool {
	if isOdd(name) {
		// Under another spelling a field is always the client's own, also behind a
		// trusted proxy, and only ever there to be mistaken.
		name = fold(name)
		return isGateways(name) || isForwarding(name) || slices.Contains(framing, name) || rt.requestRules.drops[name]
	}
	switch {
	case name == "Authorization":
		return !rt.keepAuthorization
	case name == "Tracestate":
		return !keepTrace
	case isGateways(name):
		return true
	case isForwarding(name):
		return !trusted
	}
	return len(rt.requestRules.drops) > 0 && rt.requestRules.drops[name]
}

// isGateways tells the fields that end here or are ours to write.
func isGateways(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
		"Authorization", "X-Csrf", "Dpop", "Baggage", "Traceparent", "Tracestate", "X-Request-Id":
		return true
	}
	return false
}

// isForwarding tells the fields by which proxies speak of the original request:
// the whole family, as upstreams read more of it than any list knows
// (CVE-2026-35051).
func isForwarding(name string) bool {
	switch name {
	case "Forwarded", "X-Real-Ip", "X-Rewrite-Url":
		return true
	}
	if len(name) <= 8 {
		return false
	}
	if name[:2] == "X-" && (strings.HasPrefix(name, "X-Forwarded") || strings.HasPrefix(name, "X-Original-") || strings.HasPrefix(name, "X-Envoy-")) {
		return true
	}
	if last := name[len(name)-1]; last != 'p' && last != '6' {
		return false
	}
	return strings.HasSuffix(name, "Client-Ip") || strings.HasSuffix(name, "-Connecting-Ip") || strings.HasSuffix(name, "-Connecting-Ipv6")
}

// addVia appends us to Via. A request that has been here is going in a circle
// (RFC 9110, section 7.6; HT-03).
func (x *exchange) addVia(r *http.Request, h http.Header) error {
	via := via11
	switch {
	case r.ProtoMajor == 2:
		via = via20
	case r.ProtoMajor == 1 && r.ProtoMinor == 0:
		via = via10
	}
	prior := h["Via"]
	for _, line := range prior {
		if strings.Contains(line, pseudonym) {
			return &upstreamError{code: "upstream_unreachable", err: errors.New("the upstream is this gateway itself")}
		}
	}
	if prior == nil {
		h["Via"] = via
		return nil
	}
	h["Via"] = append(slices.Clip(prior), via...)
	return nil
}

// addForwarded tells the upstream who asked for what.
func (x *exchange) addForwarded(h http.Header) {
	x.values[0] = x.peer
	if prior := h["X-Forwarded-For"]; len(prior) > 0 {
		x.values[0] = strings.Join(prior, ", ") + ", " + x.peer
	}
	h["X-Forwarded-For"] = x.values[0:1:1]
	if prior := h["Forwarded"]; prior != nil { // of a trusted proxy; RFC 7239, section 4
		node := x.peer
		if strings.Contains(node, ":") {
			node = `"[` + node + `]"`
		}
		h["Forwarded"] = append(slices.Clip(prior), "for="+node)
	}
	h["X-Forwarded-Proto"], h["X-Forwarded-Host"] = x.app.forwardedProto, x.app.forwardedHost
}
