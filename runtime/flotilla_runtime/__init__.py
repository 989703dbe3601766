"""The programs in Flotilla's pods besides the engine: agents, gateway, router agent, retriever, builds."""
