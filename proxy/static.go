package proxy

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// DefaultCSP is the policy of static documents where the configuration has none;
// frame-ancestors is added to it. A built single-page app runs under it as it
// is: bundlers write no inline scripts, but their components set inline styles
// and small images are data: URLs. Calls go through this gateway, so 'self' will
// do for them too.
const DefaultCSP = "default-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; " +
	"img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'"

// staticFiles serves the built files of a single-page app.
//
// The directory is opened for each request, so that a deploy is seen at once
// however it is made: files overwritten, the directory replaced, or a symlink to
// it turned. It is opened as an os.Root: no dots and no symlink lead out of it.
type staticFiles struct {
	dir      string
	fallback string // a file below dir, or ""
	tags     tagCache
}

// newStaticFiles checks that there is something to serve. The fallback is the
// page that answers navigations to paths that are no file, or "".
func newStaticFiles(dir, fallback string) (*staticFiles, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("proxy: static directory %q: %w", dir, err)
	}
	root, err := os.OpenRoot(abs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("proxy: static directory %s does not exist: build the app first, or correct static.dir", abs)
	}
	if err != nil {
		return nil, fmt.Errorf("proxy: static directory, which holds the built app: %w", err)
	}
	defer root.Close()
	s := &staticFiles{dir: abs, fallback: fallback}
	if fallback == "" {
		return s, nil
	}
	if !fs.ValidPath(fallback) || isHidden(fallback) {
		return nil, fmt.Errorf("proxy: static fallback %q is not the name of a file in %s, such as index.html", fallback, abs)
	}
	v, err := open(root, fallback)
	if err != nil {
		return nil, fmt.Errorf("proxy: static fallback in %s: build the app first, or correct static.fallback: %w", abs, err)
	}
	return s, v.file.Close()
}

// serve answers with a file. The path is the one below static.dir, encoded;
// navigation tells whether a browser loads a document; documents are further
// header fields of those.
func (s *staticFiles) serve(w http.ResponseWriter, r *http.Request, rawPath string, navigation, authenticated bool, documents http.Header) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return notAllowed("GET, HEAD")
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return fmt.Errorf("proxy: static directory: %w", err)
	}
	defer root.Close()
	name, err := find(root, rawPath)
	switch {
	case err != nil:
		return err
	case strings.HasSuffix(name, "/"):
		redirectInto(w, r, rawPath)
		return nil
	case name == "" && navigation:
		// Navigations only: a page in place of a script that is missing would be
		// run as one, and kept by caches (HT-12).
		name = s.fallback
	}
	if name == "" {
		return errNoRoute
	}
	v, err := choose(root, name, r.Header)
	if err != nil {
		return err
	}
	defer v.file.Close()
	tag, err := s.tags.tag(v)
	if err != nil {
		return fmt.Errorf("proxy: static file: %w", err)
	}
	h := w.Header()
	v.describe(h, r, documents)
	h.Set("Etag", tag)
	h.Set("Cache-Control", cacheControl(name, authenticated))
	// No Last-Modified: reproducible builds give all files one date, and
	// If-Modified-Since would then keep a former deploy alive.
	http.ServeContent(w, r, "", time.Time{}, v.file)
	return nil
}

// find returns the name of the file that a path means: "" if there is none, with
// a slash at the end for a directory with an index.html.
func find(root *os.Root, rawPath string) (string, error) {
	name, err := url.PathUnescape(strings.TrimPrefix(rawPath, "/"))
	if name == "" || strings.HasSuffix(name, "/") {
		name += "index.html"
	}
	switch {
	case isHidden(name):
		return "", errNoRoute // not even the fallback: .env and .git are asked for by nobody else
	case err != nil || !fs.ValidPath(name) || strings.Contains(name, `\`):
		return "", nil
	}
	info, err := root.Stat(name)
	if err == nil && info.IsDir() {
		name += "/"
		info, err = root.Stat(name + "index.html")
	}
	if err != nil && isFault(err) {
		return "", fmt.Errorf("proxy: static file: %w", err)
	}
	if err != nil || !info.Mode().IsRegular() {
		return "", nil
	}
	return name, nil
}

// isHidden tells dotfiles and what lies in dot directories. What is well known
// is made to be asked for (RFC 8615).
func isHidden(name string) bool {
	name = strings.TrimPrefix(name, ".well-known/")
	return strings.HasPrefix(name, ".") || strings.Contains(name, "/.")
}

// isFault tells errors that say nothing about whether there is such a file. All
// others do: a name too long, a file where a directory should be, a symlink that
// leads outside.
func isFault(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EIO)
}

// redirectInto sends the browser into a directory, so that relative links in its
// index.html hold. A relative Location needs no knowledge of the prefix that the
// route may have stripped, and cannot lead to another host.
func redirectInto(w http.ResponseWriter, r *http.Request, rawPath string) {
	location := "./" + path.Base(rawPath) + "/"
	if r.URL.RawQuery != "" {
		location += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", location)
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// variant is a file as it is sent: the one that was asked for, or a compressed
// sibling.
type variant struct {
	name     string // of the file that was asked for
	encoding string // Content-Encoding, "" for none
	varies   bool   // there is a sibling, so Accept-Encoding decides
	file     *os.File
	info     fs.FileInfo
}

// codings are the siblings we know, best first.
var codings = []struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}}

// open opens a regular file. It looks before, since to open a pipe would block.
func open(root *os.Root, name string) (variant, error) {
	info, err := root.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return variant{}, err
	}
	f, err := root.Open(name)
	if err != nil {
		return variant{}, err
	}
	if info, err = f.Stat(); err != nil { // again: a deploy may have come between
		f.Close()
		return variant{}, err
	}
	return variant{name: name, file: f, info: info}, nil
}

// choose opens a file, or the sibling of it that the client likes best. Ranges
// are always of the file itself: their client may have begun with it.
func choose(root *os.Root, name string, request http.Header) (variant, error) {
	v, err := open(root, name)
	switch {
	case err != nil && isFault(err):
		return v, fmt.Errorf("proxy: static file: %w", err)
	case err != nil:
		return v, errNoRoute // gone since find saw it, or there is no fallback any more
	}
	accept := request["Accept-Encoding"]
	best, modified := quality(accept, "identity"), v.info.ModTime()
	for _, c := range codings {
		sibling, err := open(root, name+c.suffix)
		if err != nil {
			continue
		}
		// An older sibling was made of a former version of the file. The second is
		// for tools that unpack a build in any order.
		current := modified.Sub(sibling.info.ModTime()) <= time.Second
		v.varies = v.varies || current
		q := quality(accept, c.name)
		if !current || q == 0 || q < best || q == best && v.encoding != "" || request["Range"] != nil {
			sibling.file.Close()
			continue
		}
		v.file.Close()
		best, v = q, variant{name: name, encoding: c.name, varies: true, file: sibling.file, info: sibling.info}
	}
	return v, nil
}

// quality returns the weight that Accept-Encoding gives a coding (RFC 9110,
// section 12.5.3), 0 if none. That is identity's too, which is acceptable also
// where it is not named, but then no better than what is.
func quality(lines []string, coding string) float64 {
	wildcard := 0.0
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(item, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			q := 1.0
			if k, value, ok := strings.Cut(params, "="); ok && strings.EqualFold(strings.TrimSpace(k), "q") {
				q, _ = strconv.ParseFloat(strings.TrimSpace(value), 64) // 0 if it is no number
			}
			switch {
			case name == coding || name == "x-"+coding: // x-gzip: RFC 9110, section 8.4.1.3
				return q
			case name == "*":
				wildcard = q
			}
		}
	}
	return wildcard
}

// describe sets the header fields that tell what the file is.
func (v variant) describe(h http.Header, r *http.Request, documents http.Header) {
	mediaType := cmp.Or(mediaTypes[strings.ToLower(path.Ext(v.name))], "application/octet-stream")
	h.Set("Content-Type", mediaType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "strict-origin-when-cross-origin")
	if strings.HasPrefix(mediaType, "text/html") || strings.Contains(mediaType, "xml") { // SVG runs scripts too
		for name, values := range documents {
			h[name] = values
		}
	}
	if v.varies {
		h.Add("Vary", "Accept-Encoding")
	}
	if v.encoding == "" {
		return
	}
	h.Set("Content-Encoding", v.encoding)
	// ServeContent leaves the length of encoded content to us. It would be wrong
	// on a 412, which only If-Match can cause.
	if r.Header["If-Match"] == nil {
		h.Set("Content-Length", strconv.FormatInt(v.info.Size(), 10))
	}
}

// mediaTypes are ours, as those of the machine depend on what is installed on it,
// and a script of the wrong type does not run.
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".htm": "text/html; charset=utf-8", ".xhtml": "application/xhtml+xml",
	".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".cjs": "text/javascript; charset=utf-8",
	".css": "text/css; charset=utf-8", ".wasm": "application/wasm",
	".json": "application/json", ".map": "application/json", ".webmanifest": "application/manifest+json",
	".txt": "text/plain; charset=utf-8", ".md": "text/markdown; charset=utf-8", ".csv": "text/csv; charset=utf-8",
	".vtt": "text/vtt; charset=utf-8", ".xml": "application/xml", ".pdf": "application/pdf",
	".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif",
	".webp": "image/webp", ".avif": "image/avif", ".apng": "image/apng", ".bmp": "image/bmp", ".ico": "image/x-icon",
	".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf", ".otf": "font/otf", ".eot": "application/vnd.ms-fontobject",
	".mp4": "video/mp4", ".webm": "video/webm", ".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".ogg": "audio/ogg", ".wav": "audio/wav",
	".glb": "model/gltf-binary", ".gltf": "model/gltf+json", ".gz": "application/gzip", ".zip": "application/zip",
}

// cacheControl lets files stay in caches whose names change with their content.
// All others are asked for again each time, and mostly answered by a 304.
func cacheControl(name string, authenticated bool) string {
	value := "no-cache"
	if isHashed(name) {
		value = "public, max-age=31536000, immutable"
	}
	if authenticated {
		value = "private, " + strings.TrimPrefix(value, "public, ") // HT-11
	}
	return value
}

var (
	// hashAtEnd finds what may be a hash: eight base64url characters (Vite, Rollup),
	// or any number of others (webpack, esbuild, Parcel).
	hashAtEnd = regexp.MustCompile(`[-.]([A-Za-z0-9]{8,}|[A-Za-z0-9_-]{8})$`)
	hexHash   = regexp.MustCompile(`^[0-9a-f]*([0-9][a-f]|[a-f][0-9])[0-9a-f]*$`)
	// chosen matches what people name files: words, numbers, sizes, and words with a
	// number. "Inter-SemiBold", "report-20261122", "hero-1920x1080".
	chosen = regexp.MustCompile(`^(?:` + chosenPart + `)(?:[-_](?:` + chosenPart + `))*$`)
)

const chosenPart = `[0-9]+|[0-9]+x[0-9]+[a-z]*|[A-Za-z][a-z]{3,}(?:[A-Z][a-z]{3,})*(?:[0-9]{0,3}|20[0-9]{2})`

// isHashed tells whether a file's name holds a hash of its content. It can only
// guess, and rather guesses no: that costs a 304, a wrong yes a year.
func isHashed(name string) bool {
	stem := strings.TrimSuffix(path.Base(name), ".map")
	ext := path.Ext(stem)
	switch strings.ToLower(ext) {
	case "", ".html", ".htm", ".xhtml", ".txt", ".md", ".xml", ".webmanifest":
		return false
	}
	stem = strings.TrimSuffix(stem, ext)
	for _, part := range []string{".min", ".bundle", ".chunk"} {
		stem = strings.TrimSuffix(stem, part)
	}
	if len(stem) >= 16 && hexHash.MatchString(stem) {
		return true // webpack's asset modules are named by nothing else
	}
	m := hashAtEnd.FindStringSubmatch(stem)
	switch {
	case m == nil:
		return false
	case hexHash.MatchString(m[1]):
		return true
	case chosen.MatchString(m[1]):
		return false
	}
	// Between - or _ may be short words as well.
	return !strings.ContainsAny(m[1], "-_") || strings.ContainsAny(m[1], "0123456789") &&
		m[1] != strings.ToLower(m[1]) && m[1] != strings.ToUpper(m[1])
}

// tagCache remembers entity tags. They are hashes of the content, since neither
// size nor time will do: replicas have different times, and reproducible builds
// have the same for each version, whose index.html has the same size too. Size
// and time only tell that a file we hashed, by its inode, is still the same.
type tagCache struct {
	mu    sync.Mutex // guards known
	known map[string]knownTag
}

type knownTag struct {
	info fs.FileInfo
	tag  string
}

// maxTags bounds what deploys with ever new names leave behind.
const maxTags = 10000

// tag returns the strong entity tag of a variant, and does not move its file.
func (c *tagCache) tag(v variant) (string, error) {
	key := v.file.Name()
	c.mu.Lock()
	k, ok := c.known[key]
	c.mu.Unlock()
	if ok && os.SameFile(k.info, v.info) && k.info.Size() == v.info.Size() && k.info.ModTime().Equal(v.info.ModTime()) {
		return k.tag, nil
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(v.file, 0, v.info.Size())); err != nil {
		return "", err
	}
	tag := `"` + base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:16]) + v.encoding + `"`
	// A file that was written just now may be written again within the same tick
	// of the file system's clock.
	if age := time.Since(v.info.ModTime()); age.Abs() < 2*time.Second {
		return tag, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxTags {
		c.known = map[string]knownTag{}
	}
	c.known[key] = knownTag{v.info, tag}
	return tag, nil
}
