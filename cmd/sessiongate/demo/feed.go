package demo

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// feed is a WebSocket that says each second what time it is. Nobody has anything
// to say to it but goodbye, so whatever comes ends it.
func (a *api) feed(w http.ResponseWriter, r *http.Request, _ bearer) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || key == "" {
		w.Header().Set("Upgrade", "websocket")
		reply(w, http.StatusUpgradeRequired, map[string]any{"error": "this is a WebSocket"})
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		reply(w, http.StatusInternalServerError, map[string]any{"error": "no WebSocket here"})
		return
	}
	defer conn.Close()
	defer context.AfterFunc(r.Context(), func() { conn.Close() })()
	gone := make(chan struct{})
	go func() { // ends with conn
		defer close(gone)
		buffered.ReadByte()
	}()
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept(key)); err != nil {
		return
	}
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	for {
		if _, err := conn.Write(textFrame(fmt.Sprintf(`{"time":%q}`, time.Now().UTC().Format(time.RFC3339)))); err != nil {
			return
		}
		select {
		case <-ticks.C:
		case <-gone:
			return
		}
	}
}

// accept proves that the handshake was understood (RFC 6455, 4.2.2).
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// textFrame is a message of less than 126 bytes (RFC 6455, 5.2).
func textFrame(text string) []byte {
	return append([]byte{0x81, byte(len(text))}, text...)
}
