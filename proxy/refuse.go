package proxy

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"sessiongate/session"
)

// coded is a refusal that needs nothing but its code.
type coded string

const (
	errUnknownHost    coded = "unknown_host"
	errNoRoute        coded = "no_route"
	errForbidden      coded = "forbidden"
	errBodyTooLarge   coded = "body_too_large"
	errRequestTimeout coded = "request_timeout"
)

func (e coded) Error() string { return "proxy: " + string(e) }
func (e coded) Code() string  { return string(e) }

// notAllowed refuses a method; it is the list of those allowed.
type notAllowed string

func (e notAllowed) Error() string { return "proxy: method not allowed" }
func (e notAllowed) Code() string  { return "method_not_allowed" }

// answer is how an error looks to the browser.
type answer struct {
	status      int
	title, help string
	action      action
}

// action is what the error page offers.
type action int

const (
	home  action = iota // go to the start page
	login               // start again
	retry               // load this page again
)

// answers is the one table of errors and statuses. Its codes are part of the
// wire contract (DESIGN.md, section 7).
var answers = map[string]answer{
	"invalid_return_url":   {400, "That address cannot be returned to", "The link asks to return to an address outside of this site. Start from the site's own pages.", home},
	"invalid_parameter":    {400, "The link is not complete", "The request has a parameter that is missing, repeated or not allowed.", home},
	"invalid_logout_sid":   {400, "You are still logged in", "The logout link belongs to another session. Log out from the site's own menu.", home},
	"ambiguous_cookie":     {400, "Your browser sent two sessions", "Delete this site's cookies in your browser, then log in again.", login},
	"bad_path":             {400, "That address cannot be read", "The address has a form that servers read in different ways. Check it, or start from the site's own pages.", home},
	"login_refused":        {400, "The login could not be finished", "This login was begun in another browser, or too long ago. Start again to log in.", login},
	"login_loop":           {400, "Your browser does not keep you logged in", "The login worked several times, but no cookie came back. Allow cookies for this site, then start again.", login},
	"session_required":     {401, "You are not logged in", "Log in to see this page.", login},
	"session_ended":        {401, "Your session has ended", "Log in again to go on.", login},
	"csrf_header_missing":  {403, "A header is missing", "Requests of scripts need the header X-CSRF, with any value.", home},
	"origin_denied":        {403, "The request came from another site", "It was refused because another site may have caused it. Start from this site's own pages.", home},
	"forbidden":            {403, "That is not allowed", "You cannot do this here.", home},
	"login_denied":         {403, "The login was refused", "The login service did not let you in. Start again to try another account.", login},
	"no_route":             {404, "There is nothing here", "Check the address, or go to the start page.", home},
	"no_session":           {404, "There is no such session", "It may have ended already. Load the list again.", home},
	"method_not_allowed":   {405, "That is not possible here", "This address does not take such requests.", home},
	"request_timeout":      {408, "The request took too long", "It did not arrive completely. Check your connection and try again.", retry},
	"body_too_large":       {413, "That is too large", "What you sent is larger than this address accepts.", home},
	"unknown_host":         {421, "Unknown host", "No app is configured for this host name.", home},
	"too_many_requests":    {429, "Too many attempts", "Wait a little, then try again.", login},
	"internal_error":       {500, "Something went wrong", "The fault is ours. Try again in a moment.", retry},
	"upstream_unreachable": {502, "The application cannot be reached", "It may be restarting. Try again in a moment.", retry},
	"login_failed":         {502, "The login could not be finished", "The login service gave an answer that cannot be used. Start again in a moment.", login},
	"refresh_unavailable":  {503, "The login service does not answer", "You are still logged in. Try again in a moment.", retry},
	"store_unavailable":    {503, "Sessions cannot be read right now", "You are still logged in. Try again in a moment.", retry},
	"provider_unavailable": {503, "The login service does not answer", "Try again in a moment.", login},
	"upstream_timeout":     {504, "The application takes too long", "Try again in a moment. Whoever runs this site can allow more time: the route's timeout.", retry},
}

// codeOf is the code of an error, internal_error for those that have none or one
// that is not in the table.
func codeOf(err error) string {
	var c interface{ Code() string }
	if errors.As(err, &c) {
		if _, ok := answers[c.Code()]; ok {
			return c.Code()
		}
	}
	return "internal_error"
}

// refuse answers a request with an error: a person by a page, a gRPC client by a
// status of its own, a script by a problem. It is the one place where errors become statuses. What it shows is
// the code; the cause goes to the log.
func (x *exchange) refuse(r *http.Request, err error) {
	if x.Err() != nil && !x.late() || x.status != 0 || x.hijacked || errors.Is(err, errGone) {
		panic(http.ErrAbortHandler) // nobody waits, or an answer has begun already
	}
	x.resetHeader()
	switch {
	case x.grpc:
	case x.page && errors.Is(err, session.ErrCookieWithheld):
		x.writeHop()
		return
	case x.page && x.route != nil && x.route.auth == AuthRequired && isAnonymous(err):
		x.redirectToLogin(r)
		return
	}
	code := codeOf(err)
	a := answers[code]
	x.logFailure(err, code, a.status)
	x.setErrorHeader(r, err, a.status)
	switch {
	case x.grpc:
		x.refuseCall(code, a)
	case x.page:
		x.writeErrorPage(x.errorView(err, code, a))
	default:
		x.writeProblem(x.problem(err, code, a))
	}
}

// resetHeader drops what was set for the answer that failed, but cookies: a
// callback clears its flow cookie whatever its outcome.
func (x *exchange) resetHeader() {
	h := x.Header()
	cookies, allow := h["Set-Cookie"], h["Allow"]
	clear(h)
	if cookies != nil {
		h["Set-Cookie"] = cookies
	}
	if allow != nil {
		h["Allow"] = allow
	}
	x.shape = false
	x.ownAnswer(h)
}

func (x *exchange) setErrorHeader(r *http.Request, err error, status int) {
	h := x.Header()
	h.Set("X-Sessiongate", "1")
	h.Set("X-Request-Id", x.requestID)
	var method notAllowed
	switch {
	case errors.As(err, &method):
		h.Set("Allow", string(method))
	case status == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Session") // RFC 9110, section 15.5.2; no scheme that opens a dialog
	case status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests:
		h.Set("Retry-After", strconv.Itoa(retryAfter(err)))
	case r.ProtoMajor == 1 && (status == http.StatusRequestEntityTooLarge || status == http.StatusRequestTimeout):
		h.Set("Connection", "close") // the rest of the body is not read; HTTP/2 ends the stream
	}
}

// retryAfter is in whole seconds, rounded up, and never 0.
func retryAfter(err error) int {
	var later interface{ RetryAfter() time.Duration }
	if !errors.As(err, &later) {
		return 5
	}
	return max(1, int((later.RetryAfter()+time.Second-1)/time.Second))
}

// problem is the body of RFC 9457, section 3.
type problem struct {
	Type      string         `json:"type"`
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail,omitempty"`
	Code      string         `json:"code"`
	RequestID string         `json:"request_id"`
	Reason    session.Reason `json:"reason,omitempty"`
	LoginURL  string         `json:"login_url,omitempty"`
}

func (x *exchange) problem(err error, code string, a answer) problem {
	p := problem{
		Type: "urn:sessiongate:problem:" + code, Title: a.title, Status: a.status,
		Detail: help(err), Code: code, RequestID: x.requestID,
	}
	if a.status == http.StatusUnauthorized {
		p.LoginURL = x.app.loginURL
	}
	var ended *session.Ended
	if errors.As(err, &ended) {
		p.Reason = ended.Reason
	}
	return p
}

// help is what an error says that is safe to show.
func help(err error) string {
	var h interface{ Help() string }
	if errors.As(err, &h) {
		return h.Help()
	}
	return ""
}

func (x *exchange) writeProblem(p problem) {
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and a number
	}
	x.Header().Set("Content-Type", "application/problem+json")
	x.WriteHeader(p.Status)
	x.Write(append(body, '\n'))
}

func (x *exchange) errorView(err error, code string, a answer) errorView {
	v := errorView{Status: a.status, Code: code, Title: a.title, Help: a.help, RequestID: x.requestID}
	if h := help(err); h != "" {
		v.Help = h
	}
	switch {
	case a.action == home:
		v.Link, v.Action = "/", "Go to the start page"
	case a.action == retry && x.route != nil:
		v.Link, v.Action = "", "Try again" // this very page
	default:
		v.Link, v.Action = x.app.loginURL, "Start again"
	}
	return v
}

// maxReturnURL is the longest address that login returns to (DESIGN.md, section 7).
const maxReturnURL = 1 << 10

// redirectToLogin sends a person to log in and come back. Only document
// navigations come here: fetch would follow to the provider and fail there (pain
// 15), a form would lose its body (pain 18).
func (x *exchange) redirectToLogin(r *http.Request) {
	link := x.path
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		link += "?" + r.URL.RawQuery
	}
	to := x.app.loginURL
	if encodedLen(link) <= maxReturnURL {
		to += "?returnUrl=" + url.QueryEscape(link)
	}
	x.Header().Set("Location", to)
	x.WriteHeader(http.StatusFound)
}

// encodedLen is the length of an address once what is not ASCII is encoded.
func encodedLen(s string) int {
	n := len(s)
	for i := range len(s) {
		if s[i] >= 0x80 {
			n += 2
		}
	}
	return n
}

// logFailure logs what is the operator's to mend.
func (x *exchange) logFailure(err error, code string, status int) {
	if status < 500 {
		return
	}
	event := "request_failed"
	var upstream *upstreamError
	if errors.As(err, &upstream) {
		event = "upstream_failed"
	}
	route := ""
	if x.route != nil {
		route = x.route.path
	}
	x.gateway.log.LogAttrs(x, slog.LevelWarn, "request failed",
		slog.String("event", event), slog.String("code", code), slog.String("app", x.app.origin),
		slog.String("route", route), slog.String("request_id", x.requestID), slog.Any("error", err))
}
