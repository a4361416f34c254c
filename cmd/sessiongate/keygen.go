package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
)

// keygen prints a key for session.keys: 32 bytes of the system's randomness.
func keygen(_ context.Context, args []string, stdout, stderr io.Writer) error {
	if err := newFlags("keygen", stderr).parse(args); err != nil {
		return err
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails
	_, err := fmt.Fprintln(stdout, base64.StdEncoding.EncodeToString(key))
	return err
}
