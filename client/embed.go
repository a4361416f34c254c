// Package client serves the browser helper: client.js, an ES module for
// single-page apps, and its types. The directory is an npm package, too.
package client

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"time"
)

var (
	//go:embed client.js
	js []byte
	//go:embed client.d.ts
	types []byte
)

// JS answers with the module. It is one for everybody, and the same until the
// gateway is updated.
func JS(w http.ResponseWriter, r *http.Request) error {
	script.serve(w, r)
	return nil
}

// Types answers with the module's TypeScript declarations, as text to read or to
// download: no browser runs them.
func Types(w http.ResponseWriter, r *http.Request) error {
	declarations.serve(w, r)
	return nil
}

var (
	script       = newFile("text/javascript; charset=utf-8", js)
	declarations = newFile("text/plain; charset=utf-8", types)
)

type file struct {
	contentType, etag string
	content           []byte
}

func newFile(contentType string, content []byte) file {
	sum := sha256.Sum256(content)
	return file{contentType, `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`, content}
}

func (f file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("Etag", f.etag)
	// No date: what is embedded has none, and the ETag says more.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}
