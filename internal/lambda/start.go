// SPDX-License-Identifier: Apache-2.0

package lambda

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"
)

// startTimeout bounds ReportStart. The Runtime API is on this machine.
const startTimeout = 2 * time.Second

// ReportStart tells Lambda why this process cannot serve, so that the reason is what an
// invocation gives; the process has to end then. Lambda's library has no call for it;
// this is the Runtime API's "initialization error".
func ReportStart(ctx context.Context, reason error) error {
	body, err := json.Marshal(functionError(TypeStart, reason))
	if err != nil {
		return fmt.Errorf("lambda: encoding the error: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	address := "http://" + os.Getenv(apiVariable) + "/2018-06-01/runtime/init/error"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("lambda: %s: %w", apiVariable, err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Lambda-Runtime-Function-Error-Type", TypeStart)
	transport := &http.Transport{} // with no proxy: it is on this machine
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("lambda: reporting that the start failed: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		return fmt.Errorf("lambda: reporting that the start failed: the Runtime API answers %q", response.Status)
	}
	return nil
}
