package proxy

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
)

//go:embed pages/style.css
var style string

//go:embed pages/error.html
var errorHTML string

//go:embed pages/hop.html
var hopHTML string

var (
	errorPage = template.Must(template.New("error").Parse(errorHTML))
	hopPage   = template.Must(template.New("hop").Parse(hopHTML))
)

// reload turns a cross-site navigation, for which a browser keeps back a
// SameSite=Strict cookie, into one of our own, and keeps the fragment.
const reload = "location.reload()"

var (
	errorCSP = "default-src 'none'; style-src " + hash(style) + pageCSP
	hopCSP   = "default-src 'none'; script-src " + hash(reload) + pageCSP
)

const pageCSP = "; base-uri 'none'; form-action 'none'; frame-ancestors "

// hash allows one inline text in a Content-Security-Policy.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// errorView is what the error page shows. It holds nothing from the request but
// the id, which is well-formed.
type errorView struct {
	Style             template.CSS
	Status            int
	Code, Title, Help string
	Link, Action      string
	RequestID         string
}

func (x *exchange) writeErrorPage(v errorView) {
	v.Style = template.CSS(style)
	x.writePage(errorPage, v, v.Status, errorCSP)
}

// writeHop answers a cross-site navigation by a page that repeats it.
func (x *exchange) writeHop() {
	x.writePage(hopPage, struct{ Script template.JS }{reload}, http.StatusOK, hopCSP)
}

func (x *exchange) writePage(t *template.Template, view any, status int, csp string) {
	var page bytes.Buffer
	if err := t.Execute(&page, view); err != nil {
		panic(err) // the templates are ours, and tests execute both
	}
	h := x.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", csp+x.app.frameAncestors)
	x.WriteHeader(status)
	x.Write(page.Bytes())
}
