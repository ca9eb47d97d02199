"""Whether a saved model works behind a server: it is served, asked, and compared with its training; and its export.

`recorder` is `transformers serve` with a record of token ids, `server` starts and ends it, `asking` is the client,
`prompts` what is asked, `comparison` the certificate, `card` the model card that shows it.

`gguf` converts a model for llama.cpp and Ollama, `llama_cpp` serves that file, `gguf_comparison` compares the two, and
`hub` pushes a folder.
"""
