"""Check that a saved model works behind a server (serve it, ask it, compare it with its training), and export it.

`recorder` is `transformers serve` with a record of token ids, `server` starts and ends it, `asking` is the client,
`prompts` makes the questions, `comparison` the certificate, and `card` the model card that shows it.

`gguf` converts a model for llama.cpp and Ollama, `llama_cpp` serves that file, `gguf_comparison` compares the two, and
`hub` pushes a folder.
"""
