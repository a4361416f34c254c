package gatewaytest

import (
	"os"
	"testing"
)

// Main builds the gateway, puts its path into binary, and runs the tests. It is what
// TestMain ends with: it does not return. Flags are those of Build.
func Main(m *testing.M, binary *string, flags ...string) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "sessiongate-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if *binary, err = Build(dir, flags...); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}
