// Swagger UI comes with BentoML, which serves it under static_content/.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#docs" });
