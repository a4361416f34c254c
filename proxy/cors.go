package proxy

import (
	"net/http"
	"slices"
	"strings"
)

// isPreflight tells a browser's question whether a script may send a request
// (Fetch standard, section 4.8).
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions &&
		len(r.Header["Origin"]) > 0 && len(r.Header["Access-Control-Request-Method"]) > 0
}

// preflight answers for the upstream, which cannot know that a cookie turns into
// a token here: its "yes" would be the end of the X-CSRF rule (CSRF-07).
func (x *exchange) preflight(r *http.Request) error {
	wanted := r.Header["Access-Control-Request-Method"]
	if x.cors == nil && !is(r.Header["Origin"], x.app.origin) {
		return x.rejected(r, errOriginDenied)
	}
	h := x.Header()
	x.ownAnswer(h)
	h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	if x.cors != nil {
		h.Set("Access-Control-Allow-Methods", x.route.granted(wanted))
		if v := r.Header["Access-Control-Request-Headers"]; len(v) > 0 {
			h["Access-Control-Allow-Headers"] = []string{strings.Join(v, ", ")}
		}
		h.Set("Access-Control-Max-Age", "600")
	}
	x.WriteHeader(http.StatusNoContent)
	return nil
}

// granted lists the methods that a preflight may be told.
func (rt *route) granted(wanted []string) string {
	m := wanted[0]
	if len(rt.methods) > 0 || !isToken(m) || m == http.MethodTrace || m == http.MethodConnect ||
		slices.Contains(strings.Split(anyMethod, ", "), m) {
		return rt.allow
	}
	return rt.allow + ", " + m
}

// readCORS notes that the answer is a route's, and whether a listed origin may
// read it.
func (x *exchange) readCORS(origin []string) {
	x.ofRoute = true
	if len(origin) == 1 {
		x.cors = x.app.site.listed[origin[0]]
	}
}

var (
	corsTrue   = []string{"true"}
	corsExpose = []string{"X-Sessiongate, X-Request-Id, Retry-After, WWW-Authenticate"}
	varyOrigin = []string{"Origin"}
	varyCookie = []string{"Cookie"}
)

// addVary tells caches of a field that the answer depends on.
func addVary(h http.Header, name []string) {
	if vary := h["Vary"]; vary == nil {
		h["Vary"] = name
	} else if !hasToken(vary, name[0]) && !hasToken(vary, "*") {
		h["Vary"] = append(slices.Clip(vary), name...)
	}
}

// addCORS lets a listed origin read an answer, an error of ours included (pain
// 16). What one origin may read depends on who asks, so caches must ask.
func (x *exchange) addCORS(h http.Header) {
	if len(x.app.site.listed) == 0 {
		return
	}
	addVary(h, varyOrigin)
	if x.cors != nil {
		h["Access-Control-Allow-Origin"] = x.cors
		h["Access-Control-Allow-Credentials"] = corsTrue
		h["Access-Control-Expose-Headers"] = corsExpose
	}
}
