package devprovider

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
)

// exchange is one request under way.
type exchange struct {
	r     *http.Request
	fault Fault
	event Event
}

// answer is what an endpoint decided; nothing of it is written while the fault
// may still strike. One of json, page, location or failure is set.
type answer struct {
	status   int // default 200, or 303 for a location
	header   http.Header
	json     map[string]any
	page     *page
	location string
	failure  *oauthError
}

// oauthError is an error answer of RFC 6749, 5.2.
type oauthError struct {
	code, description string
	status            int    // default 400
	challenge         string // WWW-Authenticate
}

func failed(code, description string) answer {
	return answer{failure: &oauthError{code: code, description: description}}
}

// maxForm is more than any request of a decent client.
const maxForm = 64 << 10

// endpoint makes a handler that counts, records and misbehaves around serve.
func (p *Provider) endpoint(at Endpoint, serve func(*exchange) answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			http.Error(w, "malformed form", http.StatusBadRequest)
			return
		}
		x := &exchange{r: r, event: Event{Time: p.cfg.Now(), Endpoint: at, Method: r.Method, Params: r.Form}}
		if at == Token {
			x.event.Endpoint = use(r.PostForm)
		}
		x.fault = p.arrive(x.event.Endpoint)
		if !x.fault.After {
			if x.fault.answers() {
				x.event.Status, x.event.Error = x.fault.status(), x.fault.Error
				p.record(x.event)
			}
			if x.fault.strike(w, r) {
				return
			}
		}
		a := serve(x).complete()
		x.event.Status = a.status
		if a.failure != nil {
			x.event.Error = a.failure.code
		}
		p.record(x.event)
		if x.fault.After && x.fault.strike(w, r) {
			return
		}
		a.write(w, &x.fault)
	})
}

// use tells the two grants of the token endpoint apart.
func use(form url.Values) Endpoint {
	if form.Get("grant_type") == "refresh_token" {
		return Refresh
	}
	return Code
}

// complete makes the one member that is set and the status agree.
func (a answer) complete() answer {
	if a.failure != nil {
		a.status = a.failure.status
		if a.status == 0 {
			a.status = http.StatusBadRequest
		}
		a.json = map[string]any{"error": a.failure.code, "error_description": a.failure.description}
		if a.failure.challenge != "" {
			a.header = http.Header{"Www-Authenticate": {a.failure.challenge}}
		}
	}
	if a.status == 0 {
		a.status = http.StatusOK
		if a.location != "" {
			a.status = http.StatusSeeOther
		}
	}
	return a
}

func (a answer) write(w http.ResponseWriter, f *Fault) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "same-origin")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	var body []byte
	switch {
	case a.location != "":
		w.Header().Set("Location", a.location)
	case a.page != nil:
		body = a.page.render(w.Header())
	default:
		if f.Edit != nil {
			f.Edit(a.json)
		}
		w.Header().Set("Content-Type", "application/json")
		body, _ = json.Marshal(a.json) // nothing but strings, numbers and lists
	}
	w.WriteHeader(a.status)
	f.write(w, body)
}

// repeated names a parameter that is there twice, which no OAuth endpoint takes
// (RFC 6749, 3.1 and 3.2).
func repeated(params url.Values) string {
	names := make([]string, 0, len(params))
	for name, values := range params {
		if len(values) > 1 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}
