// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"bytes"
	"encoding/pem"
	"errors"
	"strings"
)

var (
	errEmpty          = errors.New("it is empty; is it still being written?")
	errCutShort       = errors.New("a PEM block is damaged, cut short or not at the start of its line, as behind a byte order mark; is the file still being written?")
	errNoCertificates = errors.New("it has no CERTIFICATE block; it must hold certificates as PEM")
	errNoKey          = errors.New("it has no PRIVATE KEY block; it must hold the key as PEM")
)

// blocks returns the PEM blocks of data (RFC 7468). What stands between them is
// skipped, as tools write explanations there, but not a block that [pem.Decode] cannot
// read, as it does itself: a chain, or a pool, would be taken without it.
func blocks(data []byte) ([]*pem.Block, error) {
	if len(data) == 0 {
		return nil, errEmpty
	}
	var list []*pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		list = append(list, block)
	}
	begin, end := []byte("-----BEGIN "), []byte("-----END ")
	// Some systems fill what was not written yet with zeros.
	written := bytes.TrimRight(data, "\x00")
	lastLine := written[bytes.LastIndexByte(written, '\n')+1:]
	if len(list) != bytes.Count(data, begin) || len(list) != bytes.Count(data, end) || len(lastLine) > 0 && bytes.HasPrefix(begin, lastLine) {
		return nil, errCutShort
	}
	return list, nil
}

// certificates returns the DER of the certificates in data, which are at least one. What
// else was decoded is overwritten, as it may be a key.
func certificates(data []byte) ([][]byte, error) {
	list, err := blocks(data)
	if err != nil {
		return nil, err
	}
	var chain [][]byte
	for _, block := range list {
		if block.Type == "CERTIFICATE" {
			chain = append(chain, block.Bytes)
		} else {
			clear(block.Bytes)
		}
	}
	if len(chain) == 0 {
		return nil, errNoCertificates
	}
	return chain, nil
}

// privateKey returns the first private key in data, for the caller to overwrite.
func privateKey(data []byte) (*pem.Block, error) {
	list, err := blocks(data)
	if err != nil {
		return nil, err
	}
	var key *pem.Block
	for _, block := range list {
		if key == nil && strings.HasSuffix(block.Type, "PRIVATE KEY") {
			key = block
		} else {
			clear(block.Bytes)
		}
	}
	if key == nil {
		return nil, errNoKey
	}
	return key, nil
}
