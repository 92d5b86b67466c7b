// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyturn/keyturn/internal/testprogram"
)

// service is what stands behind a proxy: it listens on the address that is its argument,
// and answers with what it was told; /wait is not answered before the client has gone.
func service() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-r.Context().Done()
			return
		}
		fmt.Fprintf(w, "%s for %s, by %s, as %q\n", r.URL.Path, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Client-Identity"))
	})
	log.Fatal(http.ListenAndServe(os.Args[1], handler))
}

// scriptFree sets variables to loopback addresses that nothing listens on.
func scriptFree(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 1, 10, "free NAME…")
	for _, name := range args {
		port, err := testprogram.FreePort("127.0.0.1")
		ts.Check(err)
		ts.Setenv(name, net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
	}
}

// scriptCurl runs curl against a proxy whose name is localhost until the service behind
// it answers with 2xx.
func scriptCurl(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 3, 100, "curl CA ADDRESS PATH ARGUMENT…")
	_, port, err := net.SplitHostPort(args[1])
	ts.Check(err)
	line := []string{"0", "curl", "-sS", "--fail-with-body", "--cacert", args[0], "https://localhost:" + port + args[2]}
	scriptUntil(ts, false, append(line, args[3:]...))
}
