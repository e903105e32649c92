// Swagger UI comes with BentoML, which serves it at /static_content.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs" });
